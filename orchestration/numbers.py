"""Numbers for the pages of a training and an evaluation, read from their outs.

Dagster plots every number of an asset's metadata over time. They are read from the outs, not from the stage's report,
so they are there however the stage was run: in Dagster, by `flame run`, or restored from a cache.

| stage | numbers |
|---|---|
| `train@...` | `first loss`, `last loss`: of the objective, means over the first and the last twentieth of the steps |
| `evaluate@...` | the headline metrics of its report |
| `concept_fit` | per recipe and group of test sets, points per decade of frequency, and the correlation per concept |
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from flame_core.dvc_project.project import DvcProject, Stage
from flame_core.model_files import CONFIG
from flame_core.model_files import METRICS as STEPS
from flame_core.training.losses import first_and_last, main_losses

FIT = "fit.json"  # as in stages.concept_fit, whose import would load pyarrow
RESULTS, METRICS = "results.json", "metrics.json"  # as in measuring.results, whose import would load pyarrow
log = logging.getLogger(__name__)


def read_numbers(project: DvcProject, stage: Stage) -> dict[str, float]:
    """{name: number} of a stage's outs; {} for stages of other kinds."""
    numbers: dict[str, float] = {}
    for out in stage.outs:
        try:
            for read in (_of_training, _of_evaluation, _of_fit):
                numbers |= dict(read(project.root / out))
        except (OSError, ValueError, KeyError) as error:  # whoever reads the out says what is wrong with it
            log.warning("no numbers of %s are shown: %s", out, error)
    return numbers


def _of_training(model: Path) -> Iterator[tuple[str, float]]:
    path = model / STEPS
    if not path.is_file():
        return
    steps = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if steps:
        first, last = first_and_last(main_losses(steps, _objective(model)))
        yield "first loss", first
        yield "last loss", last


def _objective(model: Path) -> str | None:
    """The name of a model's objective; None if no recipe trained it."""
    path = model / CONFIG
    config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return config["recipe"]["objective"]["name"] if "recipe" in config else None


def _of_evaluation(report: Path) -> Iterator[tuple[str, float]]:
    path = report / RESULTS
    if not path.is_file():
        return
    metrics = json.loads((report / METRICS).read_text("utf-8"))
    for name, _ in json.loads(path.read_text("utf-8"))["headline"]:
        if metrics[name] == metrics[name]:
            yield name, float(metrics[name])


def _of_fit(fit: Path) -> Iterator[tuple[str, float]]:
    path = fit / FIT
    if not path.is_file():
        return
    for recipe, groups in json.loads(path.read_text("utf-8"))["recipes"].items():
        for group, found in groups.items():
            for name, key in (("points per decade", "slope"), ("correlation", "r")):
                if found[key] is not None:
                    yield f"{recipe}, {group}: {name}", float(found[key])
