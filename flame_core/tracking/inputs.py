"""The datasets of a run in MLflow: what it trained on, and what it was measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Dataset, Run

CONTEXT = "mlflow.data.context"  # MLflow's tag of an input
TRAINING, EVALUATION = "training", "evaluation"


def datasets_of(run: Run, context: str) -> dict[str, Dataset]:
    """{name: dataset} of a context; of several with one name the last."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {
        each.dataset.name: each.dataset
        for each in inputs
        if any(tag.key == CONTEXT and tag.value == context for tag in each.tags)
    }
