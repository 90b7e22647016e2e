"""What every objective is: learned scalars, and this rank's share of the loss of a whole batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flame_core.params import ContrastiveParams
from flame_core.ranks import Ranks

MAX_SCALE = 100.0


class Objective(nn.Module):
    """Base of the losses; s = exp(logit_scale) is kept in [1, 100], as in CLIP.

    Attributes:
        weight: what a step multiplies this loss by.
    """

    def __init__(self, params: ContrastiveParams) -> None:
        super().__init__()
        self.weight = params.weight
        self.logit_scale = nn.Parameter(torch.tensor(math.log(params.logit_scale)))

    def forward(self, z: Tensor, t: Tensor, facets: Tensor, ranks: Ranks) -> Tensor:
        """This rank's share of the loss; the shares of all ranks add up to the loss of the batch.

        Args:
            z: [b, 1 + F, D] unit vectors of this rank's pictures, whole and by facet.
            t: [b, K, D] unit vectors of their texts.
            facets: [b, K] facet numbers of the texts, 1 to F.
            ranks: who else holds a part of the batch.
        """
        raise NotImplementedError

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scale in [1, 100]; call it after every optimiser step."""
        self.logit_scale.clamp_(0.0, math.log(MAX_SCALE))

    def scalars(self) -> dict[str, float]:
        """The learned scalars as they are reported each step."""
        return {"logit_scale": self.logit_scale.exp().item()}
