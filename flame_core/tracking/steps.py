"""The metrics of every step of a training, into its journal; a step that was recorded before is left out.

A training that resumes repeats the steps after its checkpoint, and on a CPU they are the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from flame_core.tracking.journal import Journal
from flame_core.tracking.machine import MachineMonitor


class StepRecorder:
    """Records the steps that a journal does not hold yet, and how busy the machine is."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._machine = MachineMonitor()
        self._last = max((event["step"] for event, _ in journal.events() if _is_step(event)), default=-1)

    def record(self, row: Mapping[str, float]) -> None:
        """Record a row of the training's metrics."""
        if row["step"] <= self._last:
            return
        self._last = int(row["step"])
        values = {f"train/{name}": value for name, value in row.items() if name != "step"} | self._machine.due()
        self._journal.append({"kind": "metrics", "time": now(), "step": self._last, "values": values})


def _is_step(event: Mapping[str, object]) -> bool:
    return event["kind"] == "metrics" and "dataset" not in event


def now() -> int:
    """Time in milliseconds since 1970, as MLflow counts time."""
    return time.time_ns() // 1_000_000
