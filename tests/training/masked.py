"""Trainings on the world of `world.py` with learned masks, which prune the tower half-way."""

from __future__ import annotations

from pathlib import Path

from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.training.loop import Trained, train
from tests.training.world import recipe, samples_of

PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
PRUNED = 6  # the first step with the small tower


def masked_recipe(drop: float = 0.0, keep: float = 0.6, **changes) -> TrainParams:
    """Twelve steps; eps keeps gradients that are rounding errors from becoming steps."""
    model = {"backbone_options": PLAIN | {"drop_path_rate": drop}, "image_size": 16}
    optimizer = {"learning_rate": 3e-3, "eps": 1e-3, "weight_decay": 0.1}
    masks = {"name": "learned_masks", "keep": keep, "share": 0.5, "learning_rate": 2.0}
    return recipe(**{"model": model, "optimizer": optimizer, "epochs": 4, "terms": [masks]} | changes)


def train_masked(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    return train(samples_of(folder, params), params, checkpoints, ranks, *recorders)
