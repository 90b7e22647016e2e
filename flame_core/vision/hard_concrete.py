"""Masks that are learned: hard concrete variables, 0 or 1 with a probability that has a gradient.

    z = clamp(1.2 sigmoid((log u - log(1 - u) + a) / beta) - 0.1, 0, 1),   u uniform in (1e-6, 1 - 1e-6)

a is learned, one per unit. (Louizos et al., arXiv 1712.01312; CoFi, arXiv 2204.00408; TinyCLIP, arXiv 2309.12314.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST, HIGHEST = math.log(0.01), math.log(100)
"""Bounds of a after each step."""
START = 10.0
"""a before the first step."""
_LOW, _HIGH, _MARGIN, _STEEP = -0.1, 1.1, 1e-6, 0.8


def sample(a: Tensor, u: Tensor, beta: float) -> Tensor:
    """Masks z [n] for drawn u [n] in (0, 1)."""
    u = u.clamp(_MARGIN, 1 - _MARGIN)
    stretched = torch.sigmoid((u.log() - (1 - u).log() + a) / beta) * (_HIGH - _LOW) + _LOW
    return stretched.clamp(0, 1)


def probability(a: Tensor, beta: float) -> Tensor:
    """P(z > 0) [n]."""
    return 1 - torch.sigmoid(beta * math.log(-_LOW / _HIGH) - a)


def settled(a: Tensor, beta: float) -> Tensor:
    """Masks z [n] without chance: sigmoid(0.8 a / beta), and 0 for the lowest, as many as are expected to be 0.

    At least one stays; of equal values the first stay.
    """
    soft = torch.sigmoid(a / beta * _STEEP)
    zeros = min(round(len(a) - probability(a.double(), beta).sum().item()), len(a) - 1)
    lowest = a.flip(0).sort(stable=True).indices[:zeros]
    soft[len(a) - 1 - lowest] = 0.0
    return soft
