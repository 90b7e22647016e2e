"""What a piece of a training costs when it runs: FLOPs by torch's counter, and what autograd keeps for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


@dataclass(frozen=True)
class Counted(Generic[T]):
    """A run: its result, its FLOPs, and the bytes kept for its backward pass."""

    result: T
    flops: float
    kept_bytes: int


def counted(run: Callable[[], T], there: Iterable[Tensor] = ()) -> Counted[T]:
    """Run something on the CPU; what autograd keeps of `there`, such as weights, is not counted."""
    own = {tensor.untyped_storage().data_ptr() for tensor in there}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # held, so that no storage is used twice
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    return Counted(result, counter.get_total_flops(), sum(each.untyped_storage().nbytes() for each in kept.values()))


@dataclass(frozen=True)
class Quadratic:
    """A cost of n things: constant + linear n + square n^2, through its values at n = 2, 3 and 4."""

    constant: float
    linear: float
    square: float

    @classmethod
    def through(cls, two: float, three: float, four: float) -> Quadratic:
        """The one with these values."""
        square = (four - 2 * three + two) / 2
        linear = three - two - 5 * square
        return cls(two - 2 * linear - 4 * square, linear, square)
