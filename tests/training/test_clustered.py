"""ProtoCLIP's term in whole trainings: it learns, resumes, and does not know of ranks and pieces."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flame_core.errors import Interrupted
from flame_core.objectives.batch import Moment
from flame_core.objectives.prototypes import Prototypes
from flame_core.params import PrototypesParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from tests.objectives.terms import batch_of, setup
from tests.training.clustered import clustered_recipe, train_clustered, write_clustered
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[Path]:
    """A folder with two dozen pictures, their texts, and labels."""
    folder = tmp_path_factory.mktemp("clustered")
    write_clustered(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_CHECKPOINT_SECONDS", "0")
        settings.cache_clear()
        yield folder


def test_the_first_episode_has_no_share_and_later_ones_fall(world, tmp_path):
    _, metrics, _ = train_clustered(ALONE, world, tmp_path, clustered_recipe(epochs=20))
    shares = [row["loss/prototypes"] for row in metrics]  # three steps per epoch
    assert shares[:3] == [0, 0, 0] and shares[3] > 0
    assert shares[-1] < 0.7 * shares[3]
    assert [row["prototypes/clusters"] for row in metrics[1:4]] == pytest.approx([0, 0.8, 0.8])  # the fifth is empty
    assert metrics[3]["loss"] == pytest.approx(
        sum(metrics[3][f"loss/{n}"] for n in ("multi_positive_sigmoid", "prototypes"))
    )


def test_direct_counts_from_the_first_step_and_learns(world, tmp_path):
    _, metrics, _ = train_clustered(ALONE, world, tmp_path, clustered_recipe(epochs=20, term={"mode": "direct"}))
    assert 0 < metrics[-1]["loss/prototypes"] < 0.7 * metrics[0]["loss/prototypes"]


@pytest.mark.parametrize("step", [1, 4])  # in the first episode, and in the second
def test_killed_at_any_step_it_resumes_bit_for_bit(world, tmp_path, step):
    params = clustered_recipe(drop=0.2)
    whole, metrics, _ = train_clustered(ALONE, world, tmp_path / "whole", params)
    train_killed(train_clustered, world, tmp_path / "killed", params, step)
    saved = checkpoint.load(tmp_path / "killed")
    assert saved.step == step and saved.model["objective.terms.prototypes.sums"].any()
    assert not any("teacher" in name for name in saved.model)
    resumed, again, _ = train_clustered(ALONE, world, tmp_path / "killed", params)
    assert again == metrics
    assert {name: w.numpy().tobytes() for name, w in resumed.state_dict().items()} == {
        name: w.numpy().tobytes() for name, w in whole.state_dict().items()
    }


def state_at(ranks: Ranks, folder: Path, checkpoints: Path, params) -> dict:
    """Weights and metrics, and the objective's state after the last but one step."""
    trained = train_clustered(ranks, folder, checkpoints, params)
    state = checkpoint.load(checkpoints, ranks).model
    own = {name: value for name, value in state.items() if name.startswith("objective.terms.prototypes.")}
    return {"weights": dict(trained.tower.state_dict()) | own, "metrics": trained.metrics}


def of_micro(ranks: Ranks, folder: Path, out: Path, micro: int | None) -> dict:
    return state_at(ranks, folder, out / f"{ranks.world}-{micro}", clustered_recipe(micro_batch_size=micro))


def test_two_ranks_and_pieces_give_the_weights_and_tables_of_one(world, tmp_path):
    expected = of_micro(ALONE, world, tmp_path, None)
    assert expected["weights"]["objective.terms.prototypes.table"].any()
    assert_alike(of_micro(ALONE, world, tmp_path, 3), expected)
    for of_rank in on_ranks(2, of_micro, tmp_path, world, tmp_path, 2):
        assert_alike(of_rank, expected)


def stopped_then_resumed(ranks: Ranks, folder: Path, checkpoints: Path, stop: int | None) -> dict:
    """A training of two ranks; the second is told to stop after that step, and all go on from the checkpoint."""

    def told(row: dict[str, float]) -> None:
        if row["step"] == stop and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    params = clustered_recipe(drop=0.2)
    if stop is not None:
        with pytest.raises(Interrupted):
            train_clustered(ranks, folder, checkpoints, params, told)
    trained = train_clustered(ranks, folder, checkpoints, params)
    return {"weights": {n: w.numpy().tobytes() for n, w in trained.tower.state_dict().items()}, "m": trained.metrics}


def test_two_ranks_that_stop_within_an_episode_end_with_the_same_bytes(world, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = on_ranks(2, stopped_then_resumed, tmp_path / "a", world, tmp_path / "a/checkpoints", None)
    again = on_ranks(2, stopped_then_resumed, tmp_path / "b", world, tmp_path / "b/checkpoints", 4)
    assert again == whole


def gradients_of(ranks: Ranks, folder: Path) -> dict[str, torch.Tensor]:
    """The loss of a batch with a full table, and the sum over ranks of all gradients, computed by local rows."""
    torch.manual_seed(0)
    made = dataclasses.replace(setup(8), sidecars={"clusters": folder / "data/sidecars/clusters"})
    term = Prototypes(PrototypesParams(hidden=12, dim=6), made)
    draw = torch.Generator().manual_seed(1)
    pooled = torch.randn(8, 1, 24, generator=draw)
    term.table.copy_(torch.randn(5, 6, generator=draw))
    term.there.copy_(torch.tensor([True, True, True, True, False]))
    own = slice(ranks.rank * 8 // ranks.world, (ranks.rank + 1) * 8 // ranks.world)
    leaf = pooled[own].requires_grad_()
    batch = batch_of(torch.ones(8, 1)).with_extra(clusters=torch.arange(8) % 4)[own]
    share = term({"pooled": leaf}, batch, ranks)["prototypes"]
    share.backward()
    loss, gradients = share.detach().clone(), {n: p.grad for n, p in term.named_parameters()}
    ranks.sum_(loss, *gradients.values())
    with torch.no_grad():
        term.after_step(made.tower, {}, batch, Moment(1, 9, 2), ranks)  # ends an episode
    state = {name: getattr(term, name).clone() for name in ("table", "there")}
    return {"loss": loss, "pooled": ranks.gather(leaf.grad), **gradients, **state}


def test_local_rows_of_two_ranks_add_up_to_the_loss_and_gradients_of_the_whole_batch(world, tmp_path):
    """And the tables after an episode are those of one rank, and on both ranks the same to the byte."""
    expected = gradients_of(ALONE, world)
    first, second = on_ranks(2, gradients_of, tmp_path, world)
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)
        assert first[name].numpy().tobytes() == second[name].numpy().tobytes()
    assert expected["table"].any() and expected["there"].tolist() == [True, True, True, True, False]
