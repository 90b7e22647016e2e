"""FLAME's loss on the whole picture, and the same sigmoid loss facet by facet.

    L = FLAME(z_0) + lambda * -1/(K B) * sum_i sum_(j,k) log sigmoid(y * (s <z_i,f(jk), t_jk> + b))

f(jk) is the facet that text t_jk was read for: the text is compared only with that facet of every picture. Both parts
share scale and bias. (docs/architecture.md, facet tokens.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from flame_core.objectives.batch import Batch
from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
from flame_core.objectives.term import Setup
from flame_core.params import FacetSigmoidParams
from flame_core.processes.ranks import Ranks


class FacetSigmoid(MultiPositiveSigmoid):
    """z_0 and the facets of all ranks' pictures against this rank's texts with facet numbers from 1 to F."""

    def __init__(self, params: FacetSigmoidParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._facet_weight = params.facet_weight

    def of_view(self, z: Tensor, t: Tensor, batch: Batch, ranks: Ranks) -> Tensor:
        images = ranks.gather(z)  # [B, 1 + F, D]
        texts = t.flatten(0, 1)
        columns, order = [], []
        for facet in range(1, images.shape[1]):
            chosen = (batch.facets.reshape(-1) == facet).nonzero()[:, 0]
            columns.append(self.logits(images[:, facet], texts[chosen]))
            order.append(chosen)
        logits = torch.cat(columns, dim=1)[:, torch.argsort(torch.cat(order))]  # [B, b K]
        whole = self.share(self.logits(images[:, 0], texts), len(t), ranks)
        return whole + self._facet_weight * self.share(logits, len(t), ranks)
