"""The cost of running a part of a training: FLOPs by torch's counter, and the bytes autograd keeps for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from flame_core.flops import flop_counter

T = TypeVar("T")


@dataclass(frozen=True)
class Counted(Generic[T]):
    """A run: its result, its FLOPs, and the bytes kept for its backward pass."""

    result: T
    flops: float
    kept_bytes: int


def counted(run: Callable[[], T], there: Iterable[Tensor] = ()) -> Counted[T]:
    """Call `run` on the CPU; tensors in `there`, such as weights, are not counted among those that autograd keeps."""
    own = {tensor.untyped_storage().data_ptr() for tensor in there}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # kept alive, so that no storage is reused
        return tensor

    counter = flop_counter()
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    return Counted(result, counter.get_total_flops(), sum(each.untyped_storage().nbytes() for each in kept.values()))


@dataclass(frozen=True)
class Quadratic:
    """The cost of n items: constant + linear n + square n^2, determined by its values at n = 2, 3 and 4."""

    constant: float
    linear: float
    square: float

    @classmethod
    def through(cls, two: float, three: float, four: float) -> Quadratic:
        """The polynomial with these values at n = 2, 3 and 4."""
        square = (four - 2 * three + two) / 2
        linear = three - two - 5 * square
        return cls(two - 2 * linear - 4 * square, linear, square)
