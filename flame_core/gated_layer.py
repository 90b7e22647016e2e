"""SAIL's alignment layer, which stands behind a frozen tower and behind a frozen LLM (arXiv 2412.04616)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Gated(nn.Module):
    """SAIL's alignment layer, x [..., C] to [..., D]: two linear maps, one as a gate of the other, and a third."""

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.gate, self.value, self.out = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu6(self.gate(x)) * self.value(x))
