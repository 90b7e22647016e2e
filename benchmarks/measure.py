"""Timing in turns, the machine's peak FLOP/s, and one line per figure in `benchmarks/results.jsonl`.

The cases of a benchmark run in turns within one process, so that other load affects all of them equally; a figure is
the median over the turns, a ratio the median of the ratios within a turn. Work of one thread can be timed in processor
seconds (`PROCESSOR`), which do not depend on other load.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flame_core.git import git

WALL, PROCESSOR = time.perf_counter, time.process_time
RESULTS = Path(__file__).parent / "results.jsonl"


@dataclass(frozen=True)
class Timed:
    """Seconds of each case in each turn."""

    seconds: dict[str, list[float]]

    def median(self, case: str) -> float:
        return statistics.median(self.seconds[case])

    def ratio(self, case: str, baseline: str) -> float:
        """How many times faster a case is than a baseline."""
        pairs = zip(self.seconds[baseline], self.seconds[case], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)


def in_turns(
    cases: Mapping[str, Callable[[], Any]], turns: int, warm: int = 1, clock: Callable[[], float] = WALL
) -> Timed:
    """Run each case once per turn, after `warm` turns that do not count.

    If it is interrupted, the turns that are whole are the result.
    """

    def timed(run: Callable[[], Any], counts: bool) -> float:
        synchronize()
        start = clock()
        run()
        synchronize()
        return clock() - start

    return timing_themselves({case: partial(timed, run) for case, run in cases.items()}, turns, warm)


def timing_themselves(cases: Mapping[str, Callable[[bool], float]], turns: int, warm: int = 1) -> Timed:
    """`in_turns` of cases that return their seconds; they are told whether the turn counts."""
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    try:
        for turn in range(warm + turns):
            for case, run in cases.items():
                took = run(turn >= warm)
                if turn >= warm:
                    seconds[case].append(took)
    except KeyboardInterrupt:
        whole = min(map(len, seconds.values()))
        if not whole:
            raise
        print(f"interrupted after {whole} of {turns} turns", flush=True)
        return Timed({case: own[:whole] for case, own in seconds.items()})
    return Timed(seconds)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_ceiling(
    device: str, dtype: torch.dtype, size: int | None = None, clock: Callable[[], float] = WALL
) -> float:
    """FLOP/s of a large square matrix product, the best of a dozen."""
    size = size or (8192 if device == "cuda" else 1536)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(in_turns({"matmul": lambda: a @ b}, 12, clock=clock).seconds["matmul"])
    return 2 * size**3 / best


def peak_bytes() -> int:
    """Peak memory of the GPU if there is one, else of this process, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def record(
    benchmark: str, case: str, figure: float, unit: str, ratio: float | None = None, baseline: str | None = None
) -> None:
    """Print a figure and append it, with machine, versions and commit, to `results.jsonl`."""
    beside = "" if ratio is None else f"   {ratio:.2f} x {baseline}"
    print(f"{benchmark:<16} {case:<28} {figure:>12,.4g} {unit}{beside}", flush=True)
    line = {"benchmark": benchmark, "case": case, "figure": float(f"{figure:.5g}"), "unit": unit}
    line |= {"ratio": None if ratio is None else float(f"{ratio:.4g}"), "baseline": baseline}
    line |= {"machine": machine(), "versions": {"torch": torch.__version__}, "commit": commit()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")


def machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def commit() -> str:
    return git(RESULTS.parent, "rev-parse", "--short", "HEAD") or "unknown"
