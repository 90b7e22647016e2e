"""What is asked of a model, one task a file; `TASKS` has them by the `kind` that definitions name."""

from __future__ import annotations

from typing import Any

from flame_core.suite.tasks.choice import Choice
from flame_core.suite.tasks.classification import Classification
from flame_core.suite.tasks.probe import Probe
from flame_core.suite.tasks.protocol import Task
from flame_core.suite.tasks.retrieval import Retrieval
from flame_core.suite.tasks.segmentation import Segmentation

TASKS: dict[str, Task[Any, Any]] = {
    "retrieval": Retrieval(),
    "classification": Classification(),
    "choice": Choice(),
    "linear_probe": Probe(),
    "segmentation": Segmentation(),
}
