"""LexVLA's terms in whole trainings: pictures learn their captions' words, and no word is used for everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_core.lexical.values import dense
from flame_core.objectives.batch import Moment
from flame_core.objectives.lexical import Overuse
from flame_core.params import OveruseParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.settings import settings
from flame_core.training.recipe_check import recipe_faults
from tests.objectives.terms import batch_of, setup
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike
from tests.training.worded import COLOURS, V, caption_words, lexicon, train_worded, worded_recipe, write_worded
from tests.training.world import recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[Path]:
    """A folder with two dozen pictures, their texts, and words."""
    folder = tmp_path_factory.mktemp("worded")
    write_worded(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_CHECKPOINT_SECONDS", "0")
        settings.cache_clear()
        yield folder


def test_pictures_learn_the_words_of_their_captions(world, tmp_path):
    _, metrics, _ = train_worded(ALONE, world, tmp_path, worded_recipe(epochs=40, terms=[]))
    assert metrics[-1]["loss"] < 0.75 * metrics[0]["loss"]


def test_the_codebook_begins_as_the_llms_rows_and_is_trained(world, tmp_path):
    trained = train_worded(ALONE, world, tmp_path, worded_recipe(epochs=1, optimizer={"learning_rate": 1e-9}))
    rows = trained.tower.state_dict()["projector.codebook"]
    torch.testing.assert_close(rows, lexicon().rows, rtol=0, atol=1e-6)
    moved = train_worded(ALONE, world, tmp_path / "moved", worded_recipe(epochs=1)).tower.state_dict()
    assert not torch.equal(moved["projector.codebook"], rows)


def test_the_penalty_rises_from_zero_and_lowers_the_use_of_a_word_that_all_share(world, tmp_path):
    with_it = worded_recipe(epochs=40, terms=[{"name": "overuse", "weight": 0.5, "ramp": 0.25}])
    _, metrics, _ = train_worded(ALONE, world, tmp_path / "with", with_it)
    shares = [row["loss/overuse"] for row in metrics]
    assert shares[0] == 0 and shares[10] > shares[1] > 0
    _, plain, _ = train_worded(
        ALONE, world, tmp_path / "without", worded_recipe(epochs=40, terms=[{"name": "overuse", "weight": 1e-9}])
    )
    use = [metrics[-1]["loss/overuse"] / 0.5, plain[-1]["loss/overuse"] / 1e-9]
    assert use[0] < 0.97 * use[1]
    assert metrics[-1]["loss/lexical"] < 1.05 * plain[-1]["loss/lexical"]


def test_killed_at_a_step_it_resumes_bit_for_bit(world, tmp_path):
    params = worded_recipe(drop=0.2)
    whole, metrics, _ = train_worded(ALONE, world, tmp_path / "whole", params)
    train_killed(train_worded, world, tmp_path / "killed", params, 4)
    resumed, again, _ = train_worded(ALONE, world, tmp_path / "killed", params)
    assert again == metrics
    assert {name: w.numpy().tobytes() for name, w in resumed.state_dict().items()} == {
        name: w.numpy().tobytes() for name, w in whole.state_dict().items()
    }


def of_micro(ranks: Ranks, folder: Path, out: Path, micro: int | None) -> dict:
    params = worded_recipe(micro_batch_size=micro)
    trained = train_worded(ranks, folder, out / f"{ranks.world}-{micro}", params)
    return {"weights": dict(trained.tower.state_dict()), "metrics": trained.metrics}


def test_two_ranks_and_pieces_give_the_weights_of_one(world, tmp_path):
    expected = of_micro(ALONE, world, tmp_path, None)
    assert_alike(of_micro(ALONE, world, tmp_path, 3), expected)
    for of_rank in on_ranks(2, of_micro, tmp_path, world, tmp_path, 2):
        assert_alike(of_rank, expected)


def test_the_captions_words_are_what_was_stored():
    vectors = dense(caption_words()[:, 0], V)
    for own in (1, 2):
        assert (vectors[np.arange(24), 2 * COLOURS + own] > 0.5).all()
    assert (vectors > 0).sum(axis=1).tolist() == [3] * 24


def test_the_ramp_is_the_share_of_the_steps_that_passed():
    term = Overuse(OveruseParams(ramp=0.5), setup(2))
    for step, factor in ((0, 0.0), (5, 0.25), (10, 0.5), (20, 1.0), (39, 1.0)):
        batch = batch_of(torch.ones(2, 1))
        term.prepare(batch, setup(2).tower, Moment(step, 40, 4), ALONE)
        z = torch.full((2, 1, 1, 4), 0.5)
        assert term({"z": z}, batch, ALONE)["overuse"].item() == pytest.approx(factor)


def test_a_head_of_words_needs_its_objective_and_the_other_way_round():
    for changes in ({"objective": {"name": "infonce"}, "terms": []}, {"model": {"head": "pooled"}}):
        with pytest.raises(ValueError, match=r"objective.name lexical and model.head lexical go together"):
            worded_recipe(**changes)
    faults = list(recipe_faults(recipe(terms=[{"name": "overuse"}])))
    assert any("set model.head to lexical" in fault.message for fault in faults)
    (fault,) = recipe_faults(worded_recipe())
    assert fault.key == ("sidecars",) and "{lexical: data/sidecars/lexical}" in fault.message
