"""A tower of this project with the store of the LLM's texts, or with its own text tower; no LLM is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from flame_core.measuring.classification import Lookup
from flame_core.measuring.image_vectors import model_identity
from flame_core.suite.models.model import Model, NotOffered
from flame_core.vision.image_encoder import ImageEncoder
from flame_core.vision.tower import ImageTower

_TEXTS = 512  # texts whose facets are in memory at once


class TrainedModel(Model):
    """The encoder in `data/models/<recipe>`, and its text side."""

    def __init__(self, name: str, encoder: ImageEncoder, model: Path, lookup: Lookup) -> None:
        self.name, self.source = name, "flame"
        self.encoder, self._lookup = encoder, lookup
        self.identity = model_identity(encoder, model)

    def pictures(self, pictures: Sequence[bytes]) -> np.ndarray:
        """z_0 of each picture."""
        return self.encoder.encode(pictures)

    def views(self, pictures: Sequence[bytes]) -> np.ndarray:
        """z_0, and one vector for each facet token of the tower."""
        return self.encoder.encode_facets(pictures)

    def texts(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """The mean over facets j of unit vectors t_j: <z, mean_j t_j> is the mean of the similarities.

        Of the kind `raw`, which is one prompt, the first facet alone counts, as for the held-out split.
        """
        facets = slice(1) if kind == "raw" else slice(None)
        blocks = [
            self._lookup(kind, texts[start : start + _TEXTS])[:, facets].mean(axis=1)
            for start in range(0, len(texts), _TEXTS)
        ]
        return np.concatenate(blocks)

    def facets(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """The unit vectors t_j of each text."""
        return self._lookup(kind, texts)

    def features(self, pictures: Sequence[bytes]) -> np.ndarray:
        """The mean of the patch tokens before the projector, as FLAME's linear probe reads it."""
        return self.encoder.encode_with(lambda tower, batch: tower.patches(batch).mean(dim=1), pictures)

    def patches(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Every patch through the projector.

        Raises:
            NotOffered: the head pools patches by attention before it projects.
        """
        if self.encoder.config["recipe"]["model"].get("head") == "attention":
            raise NotOffered("its head pools patches with attention, so single patches have no place among texts")
        return self.encoder.encode_with(patch_grid, pictures, batch_size=16)


def patch_grid(tower: ImageTower, batch: Tensor) -> Tensor:
    """Unit vectors [B, g, g, D] of the patches of pictures [B, 3, H, W], in the space of the texts."""
    vectors = F.normalize(tower.patch_vectors(batch).float(), dim=-1)
    side = math.isqrt(vectors.shape[1])  # pictures are square
    grid = getattr(getattr(tower.backbone, "patch_embed", None), "grid_size", (side, side))
    whole = math.prod(grid) == vectors.shape[1]  # a Swin merges the patches that it begins with
    return vectors.unflatten(1, grid if whole else (side, side))  # [B, g, g, D]
