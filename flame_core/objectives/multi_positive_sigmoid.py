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

from flame_core.params import ObjectiveParams

MAX_SCALE = 100.0


class MultiPositiveSigmoid(nn.Module):
    """Unit vectors z [B, D] of pictures and t [B, K, D] of their texts to the loss."""

    def __init__(self, params: ObjectiveParams, batch_size: int) -> None:
        super().__init__()
        bias = -math.log(max(batch_size - 1, 1)) if params.logit_bias == "auto" else params.logit_bias
        self.logit_scale = nn.Parameter(torch.tensor(math.log(params.logit_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        batch, k, hidden = t.shape
        with torch.autocast(z.device.type, enabled=False):
            logits = self.logit_scale.exp() * z.float() @ t.float().reshape(batch * k, hidden).T + self.logit_bias
            positive = torch.eye(batch, device=z.device).repeat_interleave(k, dim=1)  # [B, B K]
            return -F.logsigmoid((2 * positive - 1) * logits).sum() / (batch * k)

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the scale in [1, 100]; call it after every optimiser step."""
        self.logit_scale.clamp_(0.0, math.log(MAX_SCALE))
