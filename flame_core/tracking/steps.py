"""Records the metrics of every step of a training in its journal; a step that is already recorded is skipped.

A resumed training repeats the steps after its checkpoint, on a CPU with the same values. A step with a damaged line
counts as not recorded. Metrics that cannot be written, for example because the disk is full, wait for the next step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from flame_core.errors import ResourceError
from flame_core.tracking.journal import Journal
from flame_core.tracking.machine import MachineMonitor

STAGE_KEY = "stage"  # of metrics that another stage than the training recorded (`stage_metrics.py`)
log = logging.getLogger(__name__)


class StepRecorder:
    """Records the steps that a journal does not have yet, and how busy the machine is."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._machine = MachineMonitor()
        try:
            self._recorded = {event["step"] for event, _ in journal.events() if _is_step(event)}
        except OSError as error:
            log.warning("steps that were recorded before cannot be read: %s", error)
            self._recorded = set()
        self._waiting: list[dict[str, Any]] = []

    def record(self, row: Mapping[str, float]) -> None:
        """Record a row of the training's metrics."""
        step = int(row["step"])
        if step in self._recorded:
            return
        self._recorded.add(step)
        values = {f"train/{name}": value for name, value in row.items() if name != "step"} | self._machine.due()
        failed = bool(self._waiting)
        self._waiting.append({"kind": "metrics", "time": now(), "step": step, "values": values})
        try:
            self._journal.append(*self._waiting)
        except (OSError, ResourceError) as error:
            if not failed:
                why = error.__cause__ or error  # without the advice to run the same command again
                log.warning("step %d is not recorded yet, and the training goes on: %s", step, why)
        else:
            self._waiting.clear()


def _is_step(event: Mapping[str, object]) -> bool:
    return event["kind"] == "metrics" and not {"dataset", STAGE_KEY} & event.keys() and "step" in event


def now() -> int:
    """Time in milliseconds since 1970, as in MLflow."""
    return time.time_ns() // 1_000_000
