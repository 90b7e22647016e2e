"""A-CLIP on the small world, as functions that a test, a separate process or a rank can call."""

from __future__ import annotations

from pathlib import Path

from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.training.loop import Trained, train
from tests.training.world import recipe, samples_of

OPTIONS = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
HEADS = {"hidden": 16, "dim": 8}
MASK = {"name": "attentive_mask", "momentum": 0.8}


def a_clip(drop: float = 0.0, **changes) -> TrainParams:
    """A-CLIP of a tiny tower; eps keeps gradients that are rounding errors from becoming steps."""
    terms = [MASK, {"name": "simclr", **HEADS}, {"name": "byol", "weight": 2.0, "momentum": 0.8, **HEADS}]
    base = {
        "model": {"backbone_options": OPTIONS | {"drop_path_rate": drop}, "image_size": 32, "head": "cls"},
        "objective": {"name": "infonce", "views": "all"},
        "terms": terms,
        "augmentation": {"scale": [0.5, 1.0], "photometric": {}},
        "optimizer": {"learning_rate": 1e-3, "eps": 1e-2, "weight_decay": 0.1},
        "epochs": 2,
    }
    return recipe(**base | changes)


def train_on(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    return train(samples_of(folder, params), params, checkpoints, ranks, *recorders)
