"""The share of a GPU's arithmetic that a training uses (MFU), for the progress bar and MLflow; never in an out.

FLOPs are counted as `flame plan` counts them, without what is only recomputed. The peak is measured: a large matrix
product in the precision of the training, on the GPU that trains.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import torch

_STEPS = 50  # over which the rate is taken
_SIZE, _PRODUCTS = 8192, 10


class Utilisation:
    """The rate over the last steps, including all time between them, such as waiting for data."""

    def __init__(self, step_flops: float, peak: float, clock: Callable[[], float] = time.monotonic) -> None:
        """FLOPs of a step and FLOP/s of the peak, both of one process."""
        self._step_flops, self._peak, self._clock = step_flops, peak, clock
        self._ends: deque[float] = deque(maxlen=_STEPS + 1)

    def after_step(self) -> dict[str, float]:
        """`tflops`, per second of a GPU, and `mfu`, its share of the peak; {} after the first step, which compiles."""
        self._ends.append(self._clock())
        seconds = self._ends[-1] - self._ends[0]
        if seconds <= 0:
            return {}
        rate = self._step_flops * (len(self._ends) - 1) / seconds
        return {"tflops": rate / 1e12, "mfu": rate / self._peak}


def measured_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product on a GPU, the best of ten."""
    a, b = (torch.randn(_SIZE, _SIZE, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_PRODUCTS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.mm(a, b)
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return 2 * _SIZE**3 / best
