"""A recipe on stored vectors of a frozen tower."""

from __future__ import annotations

from typing import Any

from flame_core.params import TrainParams
from tests.training.world import recipe

MODEL: dict[str, Any] = {
    "backbone": "test_efficientnet",
    "image_size": 48,
    "head": "pooled",
    "pixels": "timm",
    "init": {"source": "path:net.pth"},
}


def lit(**changes: Any) -> TrainParams:
    """A recipe that trains what stands behind the tower of MODEL."""
    base = {
        "model": {**MODEL, "train": "none"},
        "sidecars": {"features": "data/sidecars/features"},
        "augmentation": {"scale": [1, 1], "flip": 0.5},
        "gates": {"max_loss_ratio": 100.0},
        "epochs": 4,
    }
    return recipe(**base | changes)
