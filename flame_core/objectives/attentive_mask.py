"""A-CLIP's mask: of each view, the tower sees only the cells of patches that its own moving average attends to most.

The average looks once at the smallest box that contains all views of a picture, at a lower resolution; each view takes
its part of the scores. Half of the patches are seen, so two views cost what one whole picture does. The term only
chooses patches and has no loss. (A-CLIP, arXiv 2212.08653; differences to its code: docs/siblings.md.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.term import DrawingTerm, Needs, Setup
from flame_core.params import AttentiveMaskParams, TrainParams
from flame_core.processes.gpu import on_device
from flame_core.processes.ranks import Ranks
from flame_core.vision.patch_cells import Cells
from flame_core.vision.patch_scores import Look, accept_any_size, look, why_not_scored
from flame_core.vision.tower import ImageTower

AVERAGE = {"cls": "average_cls", "pooled": "average_pooled"}
"""Names in `Batch.extra` of the average's features of the box around the views, [b, C], by the feature's name."""


class AttentiveMask(DrawingTerm):
    """Chooses the patches of all views of a batch; random choices are the same for any number of ranks."""

    @classmethod
    def needs(cls, params: AttentiveMaskParams) -> Needs:
        around = 0.0 if params.mode == "random" else params.resolution
        return Needs(views=params.views, reads=frozenset(), around=around, copies=bool(around))

    @classmethod
    def faults(cls, params: AttentiveMaskParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        backbone = tower.backbone
        if recipe.objective.name == params.name:
            yield "it has no loss: name it under terms, beside an objective"
        if reason := why_not_scored(backbone, "similarity" if params.mode == "random" else params.score):
            yield reason
            return
        try:
            cells = Cells.of(backbone, params.cell)
        except ValueError as error:
            yield f"cell {params.cell}: {error}: choose a side that divides the grid"
            return
        if params.keep * len(cells) < 1:
            yield f"keep {params.keep:g} of {len(cells)} cells leaves no cell: take at least {1 / len(cells):.3g}"
        size = round(params.resolution * recipe.model.image_size)
        if params.mode != "random" and any(size % side for side in backbone.patch_embed.patch_size):
            side = backbone.patch_embed.patch_size[0]
            yield (
                f"resolution {params.resolution:g} of {recipe.model.image_size} px is {size} px, which is not made of "
                f"whole patches of {side} px"
            )

    def __init__(self, params: AttentiveMaskParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._params, self._at_once = params, setup.micro_batch_size
        self._cells = Cells.of(setup.tower.backbone, params.cell)
        self._count = self._cells.kept(params.keep)
        self.keep_seed()
        self.average = None
        if params.mode != "random":
            self.average = MovingAverage(setup.tower.backbone)
            accept_any_size(self.average.module)

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        if self.average is None:
            return self._keeping(batch, self._drawn(batch, at, ranks))
        parts = [self._look(part, tower) for part in batch.split(self._at_once or len(batch))]
        seen = Look(*(torch.cat(values) for values in zip(*parts, strict=True)))
        ratings = self._cells.ratings(seen.scores, batch.boxes)
        batch = batch.with_extra(**{AVERAGE["cls"]: seen.cls, AVERAGE["pooled"]: seen.pooled})
        return self._keeping(batch, -ratings if self._params.mode == "inverted" else ratings)

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        return {}

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        if self.average is not None:
            self.average.update(tower.backbone, momentum(self._params.momentum, at))

    def _look(self, part: Batch, tower: ImageTower) -> Look:
        if self.average is None or part.around is None:
            raise RuntimeError("the batch has no box around its views")
        return look(self.average.module, tower.as_backbone_sees(part.around), self._params.score)

    def _keeping(self, batch: Batch, ratings: Tensor) -> Batch:
        """The batch of which the best cells are seen; if that is all of them, as it is."""
        if self._count == len(self._cells):
            return batch
        return batch.keeping(self._cells.best(ratings, self._count))

    def _drawn(self, batch: Batch, at: Moment, ranks: Ranks) -> Tensor:
        """Random ratings [b, V, cells] for this step: this rank's part of those of the whole batch."""
        own, views = batch.boxes.shape[:2]
        drawn = torch.rand(own * ranks.world, views, len(self._cells), generator=self.generator(at))
        return on_device(drawn[ranks.rank * own : (ranks.rank + 1) * own], batch.boxes.device)


def momentum(first: float, at: Moment) -> float:
    """That of a moving average at a step: rises from `first` along a half cosine to 1 after the last step."""
    return 1 - (1 - first) * (1 + math.cos(math.pi * at.step / at.steps)) / 2
