"""Numbers for the pages of a training and an evaluation, read from their outs.

Dagster plots every number of an asset's metadata over time. They are read from the outs, not from the stage's report,
so they are there however the stage was run: in Dagster, by `flame run`, or restored from a cache.

| stage | numbers |
|---|---|
| `train@...` | `first loss`, `last loss`: means over the first and the last twentieth of the steps |
| `evaluate@...` | the headline metrics of its report |
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from orchestration.dvc_project import DvcProject, Stage

STEPS = "metrics.jsonl"  # as in training.job, whose import would load torch
RESULTS, METRICS = "results.json", "metrics.json"  # as in measuring.results, whose import would load pyarrow
log = logging.getLogger(__name__)


def read_numbers(project: DvcProject, stage: Stage) -> dict[str, float]:
    """{name: number} of a stage's outs; {} for stages of other kinds."""
    numbers: dict[str, float] = {}
    for out in stage.outs:
        try:
            numbers |= dict(_of_training(project.root / out)) | dict(_of_evaluation(project.root / out))
        except (OSError, ValueError, KeyError) as error:  # whoever reads the out says what is wrong with it
            log.warning("no numbers of %s are shown: %s", out, error)
    return numbers


def _of_training(model: Path) -> Iterator[tuple[str, float]]:
    path = model / STEPS
    if not path.is_file():
        return
    losses = [json.loads(line)["loss"] for line in path.read_text("utf-8").splitlines()]
    if losses:
        window = max(1, len(losses) // 20)
        yield "first loss", sum(losses[:window]) / window
        yield "last loss", sum(losses[-window:]) / window


def _of_evaluation(report: Path) -> Iterator[tuple[str, float]]:
    path = report / RESULTS
    if not path.is_file():
        return
    metrics = json.loads((report / METRICS).read_text("utf-8"))
    for name, _ in json.loads(path.read_text("utf-8"))["headline"]:
        if metrics[name] == metrics[name]:
            yield name, float(metrics[name])
