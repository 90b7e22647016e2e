"""How many pieces of a batch keep their graph on a GPU, so that they do not run forward a second time.

What is left of the GPU's memory decides, as measured in the second step: by then weights, gradients and the optimiser's
moments are there. When other terms begin to count, their first two steps are such steps again. Neither features nor
gradients depend on it, except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from flame_core.processes.ranks import Ranks

_SHARE = 0.8  # of the memory that nothing uses; the rest is lost in the allocator
T = TypeVar("T")


class GraphRoom:
    """The number of pieces whose graph is kept: none in the first two steps, then as many as there is room for.

    It stays none on a CPU, whose training must not depend on its memory.
    """

    def __init__(self, device: str, ranks: Ranks) -> None:
        self.kept = 0
        self._on_gpu, self._ranks = device == "cuda", ranks
        self._phase: object = None
        self._steps = 0
        self._piece_bytes = 0

    def held(self, run: Callable[[], T]) -> T:
        """Call `run`, which makes the graph of a piece, and measure what it holds afterwards."""
        if not self._on_gpu or self._steps != 1:
            return run()
        before = torch.cuda.memory_allocated()
        result = run()
        self._piece_bytes = max(self._piece_bytes, torch.cuda.memory_allocated() - before)
        return result

    @contextmanager
    def step(self, phase: object = None) -> Iterator[None]:
        """A step, after whose second the number is decided; `phase` differs where a step computes something else."""
        if self._phase not in (None, phase):
            self.kept = self._steps = self._piece_bytes = 0
        self._phase = phase
        yield
        self._steps += 1
        if self._on_gpu and self._steps == 2:
            free, _ = torch.cuda.mem_get_info()
            self.kept = self._ranks.least(pieces_in(free, self._piece_bytes))


def pieces_in(free: int, piece_bytes: int) -> int:
    """The number of pieces whose graphs fit into `free` bytes."""
    return int(_SHARE * free) // piece_bytes if piece_bytes else 0
