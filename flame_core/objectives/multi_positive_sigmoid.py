"""FLAME's loss: every picture against every text of the batch; the picture's own K texts are positive.

    L = -1/(K B) * sum_i sum_(j,k) log sigmoid(y * (s <z_i, t_jk> + b)),  y = +1 if j = i, else -1

s = exp(logit_scale) and b = logit_bias are learned; s is kept in [1, 100] after every step. With K = 1 it is
SigLIP's loss. Logits are computed in float32, outside autocast. (arXiv 2411.11927; SigLIP: arXiv 2303.15343.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.objectives.batch import Batch
from flame_core.objectives.contrastive import TextLoss
from flame_core.objectives.term import Setup
from flame_core.params import SigmoidParams
from flame_core.processes.ranks import Ranks


class MultiPositiveSigmoid(TextLoss):
    """z_0 of all ranks' pictures against this rank's texts."""

    share_name = "sigmoid"

    def __init__(self, params: SigmoidParams, setup: Setup) -> None:
        super().__init__(params, setup)
        bias = -math.log(max(setup.batch_size - 1, 1)) if params.logit_bias == "auto" else params.logit_bias
        self.logit_bias = nn.Parameter(torch.tensor(float(bias)))

    def of_view(self, z: Tensor, t: Tensor, batch: Batch, ranks: Ranks) -> Tensor:
        images = ranks.gather(z[:, 0])  # [B, D]
        logits = self.logits(images, t.flatten(0, 1))  # [B, b K]
        return self.share(logits, len(t), ranks)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """S <z, t> + b: images [B, D], texts [N, D] -> [B, N]."""
        return self.logit_scale.exp() * images @ texts.T + self.logit_bias

    def share(self, logits: Tensor, own: int, ranks: Ranks) -> Tensor:
        """This rank's part of the loss from logits [B, b K] of all pictures with the texts of its b own pictures."""
        batch, texts = logits.shape
        mine = torch.eye(own, dtype=torch.bool, device=logits.device).repeat_interleave(texts // own, dim=1)  # [b, b K]
        positive = torch.zeros_like(logits, dtype=torch.bool)
        positive[ranks.rank * own : (ranks.rank + 1) * own] = mine
        return -F.logsigmoid(torch.where(positive, logits, -logits)).sum() / (batch * (texts // own))

    def scalars(self) -> dict[str, float | Tensor]:
        return {**super().scalars(), "logit_bias": self.logit_bias.detach()}
