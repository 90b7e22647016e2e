"""Two losses between the views of a picture, without texts: SimCLR's, and BYOL's against a moving average.

Each has heads of its own on a feature of the backbone. Their BatchNorm layers take the statistics of the whole batch,
over all ranks, and keep none: heads are never used after the training.

SimCLR, NT-Xent over the 2 B projections a of two different views of B pictures, with i' the other view of i:

    L = -1/(2 B) * sum_i log softmax_(j != i)(<a_i, a_j> / tau)_(j=i')

BYOL, for the V views of each picture, with b = predictor(projector(view)), and e the moving average of the projector on
what the moving average of the tower sees in the box around the views; no gradient flows to e:

    L = 1/(V B) * sum_i sum_v (2 - 2 cos(b_iv, e_i))

(SimCLR, arXiv 2002.05709; BYOL, arXiv 2006.07733; as parts of A-CLIP, arXiv 2212.08653.)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.objectives.attentive_mask import AVERAGE, momentum
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.term import ONE_SAMPLE, Needs, Setup, Term
from flame_core.params import AttentiveMaskParams, BYOLParams, SimCLRParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.vision.tower import ImageTower


def head(*widths: int) -> nn.Sequential:
    """Linear layers without biases; BatchNorm and ReLU between them, with the statistics of each call's rows."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide, bias=False), nn.BatchNorm1d(wide, track_running_stats=False), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


class SimCLR(Term):
    """The first two views of each picture find each other among those of all pictures."""

    @classmethod
    def needs(cls, params: SimCLRParams) -> Needs:
        return Needs(views=2, reads=frozenset({params.feature}))

    @classmethod
    def faults(cls, params: SimCLRParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        if (mask := _mask(recipe)) is not None and mask.views < 2:
            yield f"it compares two views of a picture, and attentive_mask.views is {mask.views}: set 2"

    def __init__(self, params: SimCLRParams, setup: Setup) -> None:
        super().__init__(params, setup)
        width = setup.tower.backbone.num_features
        self.head = head(width, params.hidden, params.hidden, params.dim)
        self._feature, self._temperature = params.feature, params.temperature

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        everyone = ranks.gather(features[self._feature][:, :2].float())  # [B, 2, C]
        a = F.normalize(
            self.head(everyone.transpose(0, 1).flatten(0, 1)), dim=-1
        )  # [2 B, d]: first views, second views
        b, own = len(everyone), torch.arange(len(batch), device=a.device) + ranks.rank * len(batch)
        return {"simclr": nt_xent(a, torch.cat([own, own + b]), self._temperature)}


def nt_xent(a: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """The share of `rows` in the loss of a [2 B, d], unit vectors of B first views and of the B second views."""
    logits = a[rows] @ a.T / temperature
    logits = logits.scatter(1, rows[:, None], float("-inf"))
    return F.cross_entropy(logits, (rows + len(a) // 2) % len(a), reduction="sum") / len(a)


class BYOL(Term):
    """Each view predicts the projection that the moving average makes of the box around the views."""

    @classmethod
    def needs(cls, params: BYOLParams) -> Needs:
        return Needs(reads=frozenset({params.feature}))

    @classmethod
    def faults(cls, params: BYOLParams, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        mask = _mask(recipe)
        if mask is None or mask.mode == "random":
            yield "it learns from the moving average of the term attentive_mask: add it, with a mode other than random"
        if recipe.batch_size == 1:
            yield ONE_SAMPLE

    def __init__(self, params: BYOLParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self.projector = head(setup.tower.backbone.num_features, params.hidden, params.dim)
        self.predictor = head(params.dim, params.hidden, params.dim)
        self.target = MovingAverage(self.projector)
        self._feature, self._momentum = params.feature, params.momentum

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        everyone = ranks.gather(features[self._feature].float())  # [B, V, C]
        with torch.no_grad():
            e = self.target(ranks.gather(batch.extra[AVERAGE[self._feature]].float()))  # [B, d]
        b = self.predictor(self.projector(everyone.flatten(0, 1))).unflatten(0, everyone.shape[:2])  # [B, V, d]
        own = slice(ranks.rank * len(batch), (ranks.rank + 1) * len(batch))
        unlike = 2 - 2 * F.cosine_similarity(b[own], e[own, None], dim=-1)
        return {"byol": unlike.sum() / everyone.shape[:2].numel()}

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        self.target.update(self.projector, momentum(self._momentum, at))


def _mask(recipe: TrainParams) -> AttentiveMaskParams | None:
    return next((term for term in recipe.terms if isinstance(term, AttentiveMaskParams)), None)
