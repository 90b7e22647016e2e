"""CLIP's loss: each picture must find its text among all texts of the batch, each text its picture among all pictures.

With K texts per picture there are K such problems, one per slot; the loss is their mean:

    L = 1/(2 K B) * sum_k sum_i [ -log softmax_j(s <z_i, t_jk>)_(j=i) - log softmax_j(s <z_j, t_ik>)_(j=i) ]

s = exp(logit_scale) is learned and kept in [1, 100]; there is no bias. (CLIP, arXiv 2103.00020.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from flame_core.objectives.batch import Batch
from flame_core.objectives.contrastive import TextLoss
from flame_core.processes.ranks import Ranks


class InfoNCE(TextLoss):
    """Ranks exchange images, but of the texts only a log-sum-exp for every picture. Only z_0 is used."""

    share_name = "infonce"

    def of_view(self, z: Tensor, t: Tensor, batch: Batch, ranks: Ranks) -> Tensor:
        own = len(t)
        images = ranks.gather(z[:, 0])  # [B, D]
        logits = self.logit_scale.exp() * torch.einsum("id,jkd->ijk", images, t)  # [B, b, K]
        right = logits[ranks.rank * own : (ranks.rank + 1) * own].diagonal()  # [K, b]
        over_texts = ranks.gather(logits.logsumexp(dim=1)[None]).logsumexp(dim=0)  # [B, K], over all ranks' texts
        over_images = logits.logsumexp(dim=0)  # [b, K]
        total = over_texts.sum() / ranks.world + over_images.sum() - 2 * right.sum()
        return total / (2 * right.shape[0] * len(images))
