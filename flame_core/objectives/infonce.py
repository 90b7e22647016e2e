"""CLIP's loss: each picture finds its text among all texts of the batch, each text its picture among all pictures.

With K texts a picture there are K problems, one a slot, and their mean is the loss:

    L = 1/(2 K B) * sum_k sum_i [ -log softmax_j(s <z_i, t_jk>)_(j=i) - log softmax_j(s <z_j, t_ik>)_(j=i) ]

s = exp(logit_scale) is learned and kept in [1, 100]; there is no bias. (CLIP, arXiv 2103.00020.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from flame_core.objectives.objective import Objective
from flame_core.ranks import Ranks


class InfoNCE(Objective):
    """Unit vectors z [b, 1 + F, D] of this rank's pictures and t [b, K, D] of their texts to its share of the loss.

    Pictures are exchanged; of the texts only their log-sum-exp for every picture. Only z_0 takes part.
    """

    def forward(self, z: Tensor, t: Tensor, facets: Tensor, ranks: Ranks) -> Tensor:
        own = len(t)
        with torch.autocast(z.device.type, enabled=False):
            images = ranks.gather(z[:, 0].float())  # [B, D]
            logits = self.logit_scale.exp() * torch.einsum("id,jkd->ijk", images, t.float())  # [B, b, K]
            right = logits[ranks.rank * own : (ranks.rank + 1) * own].diagonal()  # [K, b]
            over_texts = ranks.gather(logits.logsumexp(dim=1)[None]).logsumexp(dim=0)  # [B, K], over all ranks' texts
            over_images = logits.logsumexp(dim=0)  # [b, K]
            total = over_texts.sum() / ranks.world + over_images.sum() - 2 * right.sum()
            return total / (2 * right.shape[0] * len(images))
