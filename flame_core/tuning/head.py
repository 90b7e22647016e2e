"""The heads that are trained on frozen features f [B, D]: NMTune's residual MLP, and a linear probe beside it.

z = a * MLP(f) + f,   MLP = Linear(D, 4D), BatchNorm, ReLU, Linear(4D, D),   logits = Linear(D, C)(z)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from flame_core.errors import InputError


class NMTuneHead(nn.Module):
    """f [B, D] to (z [B, D], logits [B, C])."""

    def __init__(self, dims: int, classes: int, ratio: int = 4) -> None:
        super().__init__()
        self.dims = dims
        self.layers = nn.Sequential(
            nn.Linear(dims, ratio * dims), nn.BatchNorm1d(ratio * dims), nn.ReLU(), nn.Linear(ratio * dims, dims)
        )
        self.scale = nn.Parameter(torch.ones(dims))
        self.classifier = _classifier(dims, classes)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """The tuned features, and a score per class."""
        z = self.scale * self.layers(f) + f
        return z, self.classifier(z)


class LinearProbe(nn.Module):
    """f [B, D] to (f, logits [B, C]): features as they are."""

    def __init__(self, dims: int, classes: int) -> None:
        super().__init__()
        self.dims = dims
        self.classifier = _classifier(dims, classes)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """The same features, and a score per class."""
        return f, self.classifier(f)


Head = NMTuneHead | LinearProbe


def _classifier(dims: int, classes: int) -> nn.Linear:
    layer = nn.Linear(dims, classes)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    nn.init.zeros_(layer.bias)
    return layer


def scaled(features: np.ndarray) -> Tensor:
    """Features [N, D] as a head reads them: each row of length sqrt(D), the scale after a ViT's last norm.

    Raises:
        InputError: a value is not finite, or a row is 0; names it.
    """
    x = torch.from_numpy(np.array(features, dtype=np.float32))  # a copy: stored features are mapped read-only
    length = x.norm(dim=-1, keepdim=True)
    wrong = ~(torch.isfinite(length) & (length > 0)).squeeze(-1)
    if wrong.any():
        row = int(wrong.flatten().nonzero()[0])
        raise InputError(f"features: row {row} is 0 or not finite, so the model that gave it is of no use")
    return x / length * math.sqrt(x.shape[-1])
