"""ProCLIP's alignment of two sets of vectors: each near its own, and all at the same distances from one another.

With unit vectors x_i and their targets e_i, i of B samples, and a weight s of the second part,

    L = 1/B * sum_i |x_i - e_i|^2  +  s * mean over pairs i != j of h(|x_i - x_j| - |e_i - e_j|),
    h(d) = d^2 / 2 if |d| < 1, else |d| - 1/2

No gradient reaches e. (ProCLIP, arXiv 2510.18795, equations 2 and 3, with the smooth h of the authors' code; both sum
where here are means, so s is (n - 1) / 2 for sums over n samples, and a weight of L is n times theirs.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.processes.ranks import ALONE, Ranks

_LEAST = 1e-8  # of a squared distance, whose root has no gradient at 0


def alignment(x: Tensor, e: Tensor, structure: float, ranks: Ranks = ALONE) -> Tensor:
    """This rank's share of the loss.

    Args:
        x: unit vectors of this rank's samples, [b, D].
        e: their targets, [b, D].
        structure: s, the weight of the distances.
        ranks: the ranks that share the batch.
    """
    e = e.detach()
    everyone, targets = ranks.gather(x), ranks.gather(e)  # [B, D]
    total = (x - e).square().sum() / len(everyone)
    if structure and len(everyone) > 1:
        off = F.smooth_l1_loss(_distances(x, everyone), _distances(e, targets), reduction="none")  # [b, B]
        others = torch.arange(len(everyone), device=x.device) != _own(x, ranks)[:, None]
        total = total + structure * (off * others).sum() / (len(everyone) * (len(everyone) - 1))
    return total


def _own(x: Tensor, ranks: Ranks) -> Tensor:
    """[b] numbers of this rank's samples among those of all ranks."""
    return torch.arange(len(x), device=x.device) + ranks.rank * len(x)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Distances [b, B] of unit vectors."""
    return (2 - 2 * x @ y.T).clamp_min(_LEAST).sqrt()
