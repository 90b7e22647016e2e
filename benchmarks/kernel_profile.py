"""Where a GPU's time goes: the kernels of some steps by class, from torch's profiler, and the time without any."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

IDLE = "idle"
CLASSES = {  # the first that a kernel's name matches
    "attention": r"flash|fmha|sdpa|attention|compute_dot_do_o|convert_dq",
    "optimiser": r"multi_tensor_apply|adam",
    "copies": r"^Mem(cpy|set)|copy_kernel|CatArrayBatchedCopy",
    "sums of split products": r"splitKreduce|split_k_reduce",
    "matrix products": r"gemm|nvjet|cutlass|xmma|triton_tem|_mm_",
    "norms and other sums, compiled": r"^triton_(red|per|mix)",
    "element by element, compiled": r"^triton_",
}
REST = "other kernels"


def profile(step: Callable[[], Any], steps: int = 3) -> list[dict[str, Any]]:
    """Kernels and copies of `steps` steps on the GPU, as events of a trace: name, ts and dur in microseconds."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        for _ in range(steps):
            step()
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(path))
        trace = json.loads(path.read_text("utf-8"))
    return [event for event in trace["traceEvents"] if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]


def by_class(events: Iterable[Mapping[str, Any]], steps: int) -> dict[str, float]:
    """Milliseconds per step by class of kernel; `idle` lies between the first kernel and the last, without any."""
    ordered = sorted(events, key=lambda event: event["ts"])
    found: dict[str, float] = defaultdict(float)
    end = ordered[0]["ts"] if ordered else 0.0
    for event in ordered:
        found[class_of(event["name"])] += event["dur"]
        found[IDLE] += max(0.0, event["ts"] - end)
        end = max(end, event["ts"] + event["dur"])
    return {name: found[name] / steps / 1e3 for name in [*CLASSES, REST, IDLE] if name in found}


def class_of(kernel: str) -> str:
    """The class of a kernel."""
    return next((name for name, pattern in CLASSES.items() if re.search(pattern, kernel, re.IGNORECASE)), REST)


def longest(events: Iterable[Mapping[str, Any]], steps: int, most: int = 25) -> list[tuple[str, float, float]]:
    """The kernels with the most time: name, calls per step, milliseconds per step."""
    calls: dict[str, list[float]] = defaultdict(list)
    for event in events:
        calls[event["name"]].append(event["dur"])
    ranked = sorted(calls.items(), key=lambda item: -sum(item[1]))[:most]
    return [(name[:90], len(own) / steps, sum(own) / steps / 1e3) for name, own in ranked]
