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
from flame_core.processes.gpu import on_device
from flame_core.processes.ranks import Ranks


class FacetSigmoid(MultiPositiveSigmoid):
    """z_0 and the facets of all ranks' pictures against this rank's texts with facet numbers from 1 to F."""

    def __init__(self, params: FacetSigmoidParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self._facet_weight = params.facet_weight

    def of_view(self, z: Tensor, t: Tensor, batch: Batch, ranks: Ranks) -> Tensor:
        images = ranks.gather(z)  # [B, 1 + F, D]
        texts, facets = t.flatten(0, 1), batch.facets.reshape(-1)  # the latter on the CPU
        order = facets.argsort(stable=True)
        by_facet = texts[on_device(order, texts.device)].split(facets.bincount(minlength=images.shape[1]).tolist())
        columns = [self.logits(images[:, facet], own) for facet, own in enumerate(by_facet) if facet]
        logits = torch.cat(columns, dim=1)[:, on_device(order.argsort(), texts.device)]  # [B, b K]
        whole = self.share(self.logits(images[:, 0], texts), len(t), ranks)
        return whole + self._facet_weight * self.share(logits, len(t), ranks)
