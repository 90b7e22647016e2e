"""A frozen tower's vectors of pictures, stored once, so that recipes train on two tables of constants.

`flame features` writes them as the sidecar `data/sidecars/features` (docs/sidecars.md), [rows, V, C]: V views of each
picture as evaluation sees it, C numbers of the backbone. Its origin names the tower, which must be the recipe's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError
from flame_core.params import ModelParams, TrainParams
from flame_core.params.features import FeatureView
from flame_core.vision.prepared_batches import prepared_batches
from flame_core.vision.tower import ImageTower
from flame_core.vision.views import View, evaluation_picture, normalised

BATCH = {"cpu": 8, "cuda": 128}  # pictures; on a CPU few, whose feature maps stay in its caches
_OF_TOWER = {"backbone", "backbone_options", "image_size", "head", "pixels"}


def tower_of(model: ModelParams) -> dict[str, Any]:
    """The values that decide a frozen tower's vectors, beside its weights."""
    stored = "cls" if model.reads_class_token else "pooled"  # other heads read the mean patch
    return {"pixels": "clip"} | model.model_dump(mode="json", include=_OF_TOWER) | {"head": stored}


@torch.inference_mode()
def features_of(
    tower: ImageTower, jpegs: Sequence[bytes], model: ModelParams, views: Sequence[FeatureView], device: str
) -> np.ndarray:
    """[N, V, C] in float32 of pictures by a tower in evaluation mode."""
    read = "cls" if model.reads_class_token else "pooled"
    tower = tower.to(memory_format=torch.channels_last)  # in which a CPU convolves twice as fast
    rows = []
    for pixels in prepared_batches(
        jpegs, BATCH[device], partial(evaluation_picture, size=model.image_size), torch.stack, device
    ):
        shown = [
            normalised(pixels if view == "plain" else pixels.flip(2)).contiguous(memory_format=torch.channels_last)
            for view in views
        ]
        rows.append(torch.stack([tower(each, (read,))[read] for each in shown], dim=1).float().cpu().numpy())
    return np.concatenate(rows)


def require_same_tower(sidecar: Sidecar, recipe: TrainParams, weights: str | None) -> None:
    """Refuse vectors of another tower than the recipe's.

    Args:
        sidecar: the stored vectors.
        recipe: reads them.
        weights: sha256 of the recipe's initial weights.

    Raises:
        InputError: names what differs, with both values.
    """
    remedy = "give `features.model` and the recipe's `model` the same values, and run `flame features`"
    require_stored_tower(sidecar, recipe.model, weights, "the recipe", remedy)
    origin: Mapping[str, Any] = sidecar.manifest.origin
    if recipe.augmentation.flip and "mirrored" not in origin["views"]:
        raise InputError(
            f"{sidecar.folder} has no mirror images, which augmentation.flip draws: store them (features.views), or "
            "set flip to 0"
        )


def require_stored_tower(sidecar: Sidecar, model: ModelParams, weights: str | None, of: str, remedy: str) -> None:
    """Refuse vectors of another tower than a model, or of other weights.

    Args:
        sidecar: the stored vectors.
        model: of what must have been stored.
        weights: sha256 of the model's initial weights.
        of: whose model it is, for the message.
        remedy: what to do, for the message.

    Raises:
        InputError: they are of no tower, or of another; names what differs, with both values.
    """
    origin: Mapping[str, Any] = sidecar.manifest.origin
    if "tower" not in origin:
        raise InputError(
            f"{sidecar.folder} does not say which tower its vectors are of, as those of `flame features` do, and new "
            f"pictures need that tower: {remedy}"
        )
    own = {**tower_of(model), "weights": weights}
    stored = {**origin.get("tower", {}), "weights": origin.get("weights")}
    wrong = [
        f"  {name}: {of} has {own.get(name)!r}, the stored vectors {stored.get(name)!r}"
        for name in sorted(own.keys() | stored.keys())
        if own.get(name) != stored.get(name)
    ]
    if wrong:
        raise InputError(
            f"{sidecar.folder} holds vectors of another tower than {of}'s model: {remedy}:\n" + "\n".join(wrong)
        )


class StoredPictures:
    """Stored vectors in place of pictures: a training draws among their views."""

    def __init__(self, sidecar: Sidecar, flip: float) -> None:
        self._sidecar, self._flip = sidecar, flip

    def view(self, draw: random.Random) -> View:
        """A view: its number instead of pixels, and that it is of the whole picture."""
        mirrored = draw.random() < self._flip
        return View(torch.tensor(int(mirrored)), (0.0, 0.0, 1.0, 1.0, float(mirrored)))

    def read(self, places: Sequence[tuple[str, int]], views: Tensor) -> Tensor:
        """[b, V, C] in float32 of pictures by (shard, row), of the views [b, V]."""
        stored = self._sidecar.read(places).float()
        return stored[torch.arange(len(views))[:, None], views]
