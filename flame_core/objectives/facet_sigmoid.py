"""FLAME's loss on the whole picture, and the same sigmoid loss facet by facet.

    L = FLAME(z_0) + lambda * -1/(K B) * sum_i sum_(j,k) log sigmoid(y * (s <z_i,f(jk), t_jk> + b))

f(jk) is the facet that text t_jk was read for: it meets that facet of every picture and no other. Scale and bias are
shared by both terms. (docs/architecture.md, facet tokens.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
from flame_core.params import FacetSigmoidParams
from flame_core.ranks import Ranks


class FacetSigmoid(MultiPositiveSigmoid):
    """Unit vectors z [b, 1 + F, D], texts t [b, K, D] and their facet numbers [b, K], 1 to F, to a loss share."""

    def __init__(self, params: FacetSigmoidParams, batch_size: int) -> None:
        super().__init__(params, batch_size)
        self._facet_weight = params.facet_weight

    def forward(self, z: Tensor, t: Tensor, facets: Tensor, ranks: Ranks) -> Tensor:
        own, k, hidden = t.shape
        with torch.autocast(z.device.type, enabled=False):
            images = ranks.gather(z.float())  # [B, 1 + F, D]
            texts = t.float().reshape(own * k, hidden)
            columns, order = [], []
            for facet in range(1, images.shape[1]):
                chosen = (facets.reshape(-1) == facet).nonzero()[:, 0]
                columns.append(self.logits(images[:, facet], texts[chosen]))
                order.append(chosen)
            logits = torch.cat(columns, dim=1)[:, torch.argsort(torch.cat(order))]  # [B, b K]
            whole = self.share(self.logits(images[:, 0], texts), own, k, ranks)
            return whole + self._facet_weight * self.share(logits, own, k, ranks)
