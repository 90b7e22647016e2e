"""ProCLIP's self-distillation: a picture stays near what the image tower's moving average sees in the same crop.

The loss is that of `structure.alignment`, of z_0 and the average's z_0. The average begins as the tower that the
training begins with, such as a CLIP's, and follows it slowly, so that the tower does not forget while it learns to meet
other texts. (ProCLIP, arXiv 2510.18795, equations 5 and 6.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.structure import alignment
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import SelfDistillationParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.tower import ImageTower

_SEEN = "average_z"  # in `Batch.extra`: z_0 of the average, [b, D]


class SelfDistillation(Term):
    """Holds the moving average of the whole tower, its head included, which a checkpoint keeps."""

    @classmethod
    def needs(cls, params: SelfDistillationParams) -> Needs:
        return Needs(reads=frozenset({"z"}), copies=True)

    def __init__(self, params: SelfDistillationParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._structure, self._momentum, self._at_once = params.structure, params.momentum, setup.micro_batch_size
        self.average = MovingAverage(setup.tower)

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        def seen(part: Batch) -> Tensor:
            return self.average(part.pictures[:, 0], ("z",))["z"][:, 0].float()

        return batch.with_extra(**{_SEEN: batch.in_parts(seen, self._at_once)})

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        z = features["z"][:, 0, 0]
        with torch.autocast(z.device.type, enabled=False):
            return {"self_distillation": alignment(z.float(), batch.extra[_SEEN], self._structure, ranks)}

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        self.average.update(tower, self._momentum)
