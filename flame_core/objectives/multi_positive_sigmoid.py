"""FLAME's loss: every picture against every text of the batch, K texts of its own being positive.

    L = -1/(K B) * sum_i sum_(j,k) log sigmoid(y * (s <z_i, t_jk> + b)),  y = +1 where j = i, else -1

s = exp(logit_scale) and b = logit_bias are learned; s is kept in [1, 100] after every step. With K = 1 it is
SigLIP's loss. Logits are computed in float32, outside autocast. (arXiv 2411.11927; SigLIP: arXiv 2303.15343.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.objectives.objective import Objective
from flame_core.params import SigmoidParams
from flame_core.ranks import Ranks


class MultiPositiveSigmoid(Objective):
    """Unit vectors z [b, 1 + F, D] of this rank's pictures and t [b, K, D] of their texts to its share of the loss.

    The shares of all ranks add up to the loss of the whole batch. Only z_0 = z[:, 0] takes part.
    """

    def __init__(self, params: SigmoidParams, batch_size: int) -> None:
        super().__init__(params)
        bias = -math.log(max(batch_size - 1, 1)) if params.logit_bias == "auto" else params.logit_bias
        self.logit_bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, z: Tensor, t: Tensor, facets: Tensor, ranks: Ranks) -> Tensor:
        own, k, hidden = t.shape
        with torch.autocast(z.device.type, enabled=False):
            images = ranks.gather(z[:, 0].float())  # [B, D]
            logits = self.logits(images, t.float().reshape(own * k, hidden))  # [B, b K]
            return self.share(logits, own, k, ranks)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """S <z, t> + b: images [B, D], texts [N, D] -> [B, N]."""
        return self.logit_scale.exp() * images @ texts.T + self.logit_bias

    def share(self, logits: Tensor, own: int, k: int, ranks: Ranks) -> Tensor:
        """This rank's part of the loss from logits [B, b K] of all pictures with its own texts."""
        batch = len(logits)
        mine = torch.eye(own, device=logits.device).repeat_interleave(k, dim=1)  # [b, b K]
        positive = torch.zeros_like(logits)
        positive[ranks.rank * own : (ranks.rank + 1) * own] = mine
        return -F.logsigmoid((2 * positive - 1) * logits).sum() / (batch * k)

    def scalars(self) -> dict[str, float]:
        return {**super().scalars(), "logit_bias": self.logit_bias.item()}
