"""The base of losses that compare pictures with texts by s <z, t>, with a learned scale s."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import ContrastiveParams, TextLossParams, TrainParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import Ranks
from flame_core.stepping.weight_decay import parameter_groups
from flame_core.vision.tower import ImageTower

MAX_SCALE = 100.0


class Contrastive(Term):
    """A loss with s = exp(logit_scale), kept in [1, 100] as in CLIP."""

    def __init__(self, params: ContrastiveParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(params.logit_scale)))
        self._multiplier = params.learning_rate_multiplier

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        """Keep the scale in [1, 100]."""
        self.logit_scale.clamp_(0.0, math.log(MAX_SCALE))

    def groups(self, optimizer: OptimizerParams) -> list[dict[str, Any]]:
        """The learned scalars, without decay and with a separate learning rate; heads are as in other terms."""
        trained = [p for p in self.parameters() if p.requires_grad]
        scalars = [p for p in trained if p.ndim == 0]
        return [
            {"params": scalars, "weight_decay": 0.0, "multiplier": self._multiplier},
            *parameter_groups([p for p in trained if p.ndim > 0], optimizer.weight_decay),
        ]

    def scalars(self) -> dict[str, float | Tensor]:
        return {"logit_scale": self.logit_scale.detach().exp()}


class TextLoss(Contrastive):
    """A loss between the views of pictures and the texts: that of the first view, or the mean of those of all views."""

    share_name: str

    @classmethod
    def needs(cls, params: Any) -> Needs:
        return Needs(texts=True)

    @classmethod
    def faults(cls, params: Any, recipe: TrainParams, tower: ImageTower) -> Iterator[str]:
        yield from apart(recipe)

    def __init__(self, params: TextLossParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._views = 1 if params.views == "first" else None

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, Tensor]:
        with torch.autocast(features["z"].device.type, enabled=False):
            t = features["t"].float()
            views = features["z"][:, : self._views].unbind(dim=1)
            shares = [self.of_view(z.float(), t, batch, ranks) for z in views]
            return {self.share_name: shares[0] if len(shares) == 1 else torch.stack(shares).mean()}

    def of_view(self, z: Tensor, t: Tensor, batch: Batch, ranks: Ranks) -> Tensor:
        """This rank's share for one view of each picture: z [b, 1 + F, D] and t [b, K, D], outside autocast."""
        raise NotImplementedError


def apart(recipe: TrainParams) -> Iterator[str]:
    """Why z and t are in different spaces, if they are."""
    if recipe.model.head == "lexical" and recipe.lora is None:
        yield "model.head lexical gives weights of words, and the texts are vectors: leave it out, or set lora"


def first_view(features: Features) -> tuple[Tensor, Tensor]:
    """Z [b, 1 + F, D] of each picture's first view, and t [b, K, D] of its texts, both in float32."""
    return features["z"][:, 0].float(), features["t"].float()
