"""A method of its own, `throw_away.Past`: it trains, resumes, and does not know of ranks and pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flame_core.objectives import term_classes
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping import checkpoint
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.throw_away import Past, past_recipe, state_of, train_past
from tests.training.world import samples_of, write_world


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder with two dozen pictures; the term is registered."""
    monkeypatch.setitem(term_classes(), "past", Past)
    write_world(tmp_path)
    return tmp_path


def test_it_trains_and_each_share_is_reported(world):
    _, metrics, _ = train_past(ALONE, world, world / "checkpoints", past_recipe(epochs=20))
    first, last = metrics[0], metrics[-1]
    assert first["loss"] == pytest.approx(first["loss/multi_positive_sigmoid"] + first["loss/past"])
    assert last["loss/multi_positive_sigmoid"] < 0.8 * first["loss/multi_positive_sigmoid"]
    assert last["loss/past"] < 0.5 * first["loss/past"]
    assert first["past/average"] != last["past/average"] and first["past/seen"] != last["past/seen"]


def test_killed_at_any_step_it_resumes_bit_for_bit(world):
    """By SIGKILL in a separate process; average, head and statistics continue, and so do two generators."""
    params = past_recipe(drop=0.2)
    whole, metrics, _ = train_past(ALONE, world, world / "whole", params)
    train_killed(train_past, world, world / "killed", params, 3)
    saved = checkpoint.load(world / "killed")
    assert saved.step == 3 and any("past.head" in name for name in saved.model)
    resumed, again, _ = train_past(ALONE, world, world / "killed", params)
    assert again == metrics
    assert {name: w.numpy().tobytes() for name, w in resumed.state_dict().items()} == {
        name: w.numpy().tobytes() for name, w in whole.state_dict().items()
    }


def in_pieces_of(ranks: Ranks, folder: Path, micro: int | None) -> dict[str, object]:
    params = past_recipe(micro_batch_size=micro)
    trained = train_past(ranks, folder, folder / f"checkpoints-{ranks.world}-{micro}", params)
    return {"weights": state_of(trained), "metrics": trained.metrics}


def test_two_ranks_and_pieces_give_the_weights_of_one(world):
    expected = in_pieces_of(ALONE, world, None)
    assert_alike(in_pieces_of(ALONE, world, 3), expected)
    for of_rank in on_ranks(2, in_pieces_of, world, world, 2):
        assert_alike(of_rank, expected)


def assert_alike(found: dict, expected: dict) -> None:
    for row, right in zip(found["metrics"], expected["metrics"], strict=True):
        assert row == pytest.approx(right, rel=1e-4)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(
            found["weights"][name], weight, atol=3e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_further_views_leave_the_first_and_the_texts_as_they_are(world):
    one = samples_of(world, past_recipe().model_copy(update={"terms": []}))
    two = samples_of(world, past_recipe())
    a, b = (each[[(0, 3), (1, 7)]].on("cpu") for each in (one, two))
    assert a.pictures.shape[:2] == (2, 1) and b.pictures.shape[:2] == b.boxes.shape[:2] == (2, 2)
    assert torch.equal(a.pictures[:, 0], b.pictures[:, 0]) and torch.equal(a.texts, b.texts)
    assert not torch.equal(b.pictures[:, 0], b.pictures[:, 1])
    assert b.rows.tolist() == [3, 7]
    assert not torch.equal(b.boxes[:, 0], b.boxes[:, 1])
