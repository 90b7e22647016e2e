"""Random texts and a random batch, to count and time what a recipe costs without data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.objectives import recipe_needs
from flame_core.objectives.batch import Batch
from flame_core.params import TrainParams
from flame_core.text.projection import TextProjection
from flame_core.text.store import Drawn
from flame_core.text.transformer import TextTower


class MadeTexts:
    """Random texts of a recipe: vectors of `hidden` dimensions, or ids below `vocabulary` for its text tower."""

    files_per_shard = 0

    def __init__(self, params: TrainParams, hidden: int, vocabulary: int = 1) -> None:
        self.facets: list[str] = []
        self._width = hidden
        self.hidden = (params.text_projection and params.text_projection.dim) or hidden
        self._params, self._vocabulary = params, vocabulary

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """Random unit vectors [b, K, D], or token ids [b, K, L] that fill the text tower's length."""
        shape = len(samples), self._params.texts_per_image
        if (tower := self._params.text_tower) is not None:
            return torch.randint(0, self._vocabulary, (*shape, tower.max_tokens))
        return F.normalize(torch.randn(*shape, self._width), dim=-1)

    def encoder(self) -> nn.Module | None:
        """The recipe's text tower or its layers behind the texts, if it trains some."""
        if (layers := self._params.text_projection) is not None:
            return TextProjection(layers, self._width)
        tower = self._params.text_tower
        return None if tower is None else TextTower(tower, self._vocabulary, self.hidden)

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Nothing."""


def made_batch(params: TrainParams, texts: MadeTexts, pictures: int, width: int = 0) -> Batch:
    """A batch with the views that the recipe asks for, random pictures, and texts of facet 1.

    If the recipe reads stored vectors of pictures, they have `width` numbers.
    """
    needs, size = recipe_needs(params), params.model.image_size
    views, around = needs.views, round(needs.around * size)
    return Batch(
        pictures=torch.randn(pictures, views, *((width,) if params.reads_features else (3, size, size))),
        boxes=torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0]).expand(pictures, views, 5),
        texts=texts.read([Drawn("", row, ()) for row in range(pictures)]),
        facets=torch.ones(pictures, params.texts_per_image, dtype=torch.long),
        rows=torch.arange(pictures),
        keys=[str(row) for row in range(pictures)],
        around=torch.randn(pictures, 3, around, around) if around else None,
    )
