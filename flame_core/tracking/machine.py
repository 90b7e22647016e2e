"""Measures how busy the machine is during a training, under the names of MLflow's own system metrics.

The training's process samples between two steps and writes the values to its journal like any metric, so that an outage
of the tracking server loses nothing.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

import psutil

_INTERVAL = 10.0  # seconds
_MEGABYTE = 1e6


class MachineMonitor:
    """Samples processor, memory and this process's GPU at most every ten seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        psutil.cpu_percent()  # the first call starts the clock

    def due(self) -> dict[str, float]:
        """The metrics, or {} if the last sample is recent."""
        now = time.monotonic()
        if now < self._next:
            return {}
        self._next = now + _INTERVAL
        memory = psutil.virtual_memory()
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system/system_memory_usage_percentage": memory.percent,
            **_gpu(),
        }


def _gpu() -> dict[str, float]:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    index = torch.cuda.current_device()  # to ask torch about another one takes half a gigabyte of its memory
    free, total = torch.cuda.mem_get_info(index)
    found = {f"system/gpu_{index}_memory_usage_megabytes": (total - free) / _MEGABYTE}
    with suppress(Exception):  # the driver may not answer, and NVML's errors are of its own class
        found[f"system/gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(index))
    return found
