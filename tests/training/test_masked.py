"""Learned masks in a real training: it prunes, resumes at any step, and does not depend on ranks and pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flame_core.params import ModelParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping import checkpoint
from flame_core.vision.block_sizes import block_weights, sizes_of
from flame_core.vision.tower import ImageTower
from tests.training.killed import train_killed
from tests.training.masked import PLAIN, PRUNED, masked_recipe, train_masked
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike
from tests.training.world import HIDDEN, write_world


@pytest.fixture
def world(tmp_path) -> Path:
    write_world(tmp_path)
    return tmp_path


def test_the_tower_is_pruned_and_learns_on(world):
    tower, metrics, _ = train_masked(ALONE, world, world / "checkpoints", masked_recipe(epochs=20))
    sizes = sizes_of(tower.backbone)
    whole = block_weights(tower.backbone.uncut, 12)
    assert metrics[-1]["learned_masks/size"] == pytest.approx(block_weights(sizes, 12) / whole)
    assert 0.45 < metrics[-1]["learned_masks/size"] <= 0.6
    assert {row["loss/learned_masks"] for row in metrics[30:]} == {0.0} and metrics[5]["loss/learned_masks"] > 0
    assert metrics[-1]["loss/multi_positive_sigmoid"] < 0.8 * metrics[0]["loss/multi_positive_sigmoid"]
    again = ImageTower(ModelParams(backbone_options=PLAIN, image_size=16, sizes=sizes), HIDDEN, facets=2)
    again.load_state_dict(tower.state_dict())
    pictures = torch.randn(2, 3, 16, 16)
    assert torch.equal(again.eval().z(pictures), tower.eval().z(pictures))


@pytest.mark.parametrize("step", [2, PRUNED - 1, PRUNED + 2])  # while masks are drawn, just before pruning, after it
def test_killed_at_any_step_it_resumes_bit_for_bit(world, step):
    params = masked_recipe(drop=0.2)
    whole, metrics, _ = train_masked(ALONE, world, world / "whole", params)
    train_killed(train_masked, world, world / "killed", params, step)
    saved = checkpoint.load(world / "killed")
    names = {name.removeprefix("objective.terms.learned_masks.") for name in saved.model}
    assert saved.step == step and {"seed", "size"} < names
    assert ({"hidden", "heads.1", "multipliers"} < names) == (step <= PRUNED)
    resumed, again, _ = train_masked(ALONE, world, world / "killed", params)
    assert again == metrics
    assert {name: w.numpy().tobytes() for name, w in resumed.state_dict().items()} == {
        name: w.numpy().tobytes() for name, w in whole.state_dict().items()
    }


def of_micro(ranks: Ranks, folder: Path, micro: int | None) -> dict:
    """Weights and metrics, with the expected size after each step."""
    checkpoints = folder / f"{ranks.world}-{micro}"
    trained = train_masked(ranks, folder, checkpoints, masked_recipe(micro_batch_size=micro))
    return {"weights": dict(trained.tower.state_dict()), "metrics": trained.metrics}


def test_two_ranks_and_pieces_give_the_weights_of_one(world):
    expected = of_micro(ALONE, world, None)
    assert_alike(of_micro(ALONE, world, 3), expected)
    for of_rank in on_ranks(2, of_micro, world, world, 2):
        assert_alike(of_rank, expected)
