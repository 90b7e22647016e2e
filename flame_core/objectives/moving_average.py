"""An exponential moving average of a module, for methods whose teacher is an average of the trained tower over time."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """A copy of `module` in evaluation mode, without gradients; it is in the checkpoint with the term that holds it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.module(*inputs, **options)

    @torch.no_grad()
    def update(self, module: nn.Module, momentum: float) -> None:
        """Set parameters to momentum * average + (1 - momentum) * module; buffers are copied."""
        averages: list[Tensor] = list(self.module.parameters())
        currents: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(averages, currents, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        for average, current in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(current)
