"""LIFT's simplified loss: it pulls every picture towards its own texts, without negatives.

    L = 1/(K B) * sum_i sum_k (1 - <z_i, t_ik>)

Without negatives there is no scale, no exchange between ranks, and memory in O(B). It does not collapse, because the
texts are fixed and different. (LIFT, arXiv 2506.04209, `simplistic_cos` of the released code.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flame_core.objectives.batch import Batch, Features
from flame_core.objectives.contrastive import apart, first_view
from flame_core.objectives.term import Needs, Term
from flame_core.params import CosineParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.tower import ImageTower


class Cosine(Term):
    """z_0 of each picture against its own K texts only."""

    @classmethod
    def needs(cls, params: CosineParams) -> Needs:
        return Needs(texts=True)

    @classmethod
    def faults(cls, params: CosineParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        yield from apart(recipe)

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        with torch.autocast(features["z"].device.type, enabled=False):
            z, t = first_view(features)
            cosine = torch.einsum("bd,bkd->bk", z[:, 0], t)
            return {"cosine": (1 - cosine).sum() / (cosine.numel() * ranks.world)}
