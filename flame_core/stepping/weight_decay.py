"""Which weights AdamW decays, in every training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def parameter_groups(
    parameters: Sequence[nn.Parameter], weight_decay: float, multiplier: float = 1.0
) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices with decay, 1-d parameters and scalars without."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay, "multiplier": multiplier},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "multiplier": multiplier},
    ]
