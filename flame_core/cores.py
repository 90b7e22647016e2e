"""How many cores this process may use, in a container often fewer than the machine has, and what one computes."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of cgroup v2: microseconds of all cores per period, or `max`
CORE_TFLOPS = 0.05  # of one core in float32, as plans count


def usable_cores() -> int:
    """Cores that this process may run on, at most as many as its container is granted."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # no such limit
        return cores
    return max(1, min(cores, round(quota / period)))
