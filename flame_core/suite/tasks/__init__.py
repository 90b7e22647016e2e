"""The tasks of benchmarks, one per file; `TASKS` has them by the `kind` in definitions."""

from __future__ import annotations

from typing import Any

from flame_core.suite.tasks.choice import ChoiceTask
from flame_core.suite.tasks.classification import ClassificationTask
from flame_core.suite.tasks.probe import ProbeTask
from flame_core.suite.tasks.retrieval import RetrievalTask
from flame_core.suite.tasks.segmentation import SegmentationTask
from flame_core.suite.tasks.task import Task

TASKS: dict[str, Task[Any, Any]] = {
    "retrieval": RetrievalTask(),
    "classification": ClassificationTask(),
    "choice": ChoiceTask(),
    "linear_probe": ProbeTask(),
    "segmentation": SegmentationTask(),
}
