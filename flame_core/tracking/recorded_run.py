"""Reads the params and metrics of a run, a model, a workspace or a project, for `flame diff`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flame_core.absent_outs import dvc_command
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.measuring.results import METRICS, Results, read_results
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import Params, load_params
from flame_core.tracking.evaluation import REPORT
from flame_core.tracking.provenance import flat_params, flatten
from flame_core.tracking.runs import find_record
from flame_core.tracking.store import asking, require_tracking

FORMS = (
    "models:/flame@champion, models:/flame/3, runs:/<id> or its id, a model's folder such as data/models/flame, the "
    "digest of a workspace, or the folder of a project"
)
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class RecordedModel:
    """One trained model.

    Attributes:
        params: {dotted key: value} of all stages, the recipe's under `train.`; of a model's folder without the params
            it was made with, only the recipe's.
        results: what was measured; None if it was not.
    """

    params: Mapping[str, str]
    results: Results | None


def recorded_models(layout: Layout, name: str) -> dict[str, RecordedModel]:
    """The models of a run, a folder or a workspace, by recipe; `name` is one of `FORMS`.

    Raises:
        InputError: there is nothing of that name.
        ResourceError: it is a record of MLflow, which does not answer.
    """
    if name.startswith(("models:/", "runs:/")):
        return _of_record(layout, name)
    workspace = layout.state / "runs" / name
    for folder in (workspace, Path(name).resolve(), layout.root / name):
        if (folder / WEIGHTS).is_file():
            return {folder.name: _of_folder(folder)}
        if (folder / "params.yaml").is_file():
            return _of_project(Layout.find(folder))
    if _RUN_ID.fullmatch(name):
        return _of_record(layout, f"runs:/{name}")
    pulled = dvc_command(layout.root / name)
    raise InputError(
        f"{name!r} is no run, model or workspace: write {FORMS}"
        + (f". `{pulled}` brings the folder that dvc.lock records" if pulled else "")
    )


def _of_project(layout: Layout) -> dict[str, RecordedModel]:
    params = load_params(layout)
    return {
        recipe: RecordedModel(_flat(params, layout, recipe), _results(layout.report(recipe)))
        for recipe in params.recipes
    }


def _flat(params: Params, layout: Layout, recipe: str) -> dict[str, str]:
    """All params of a recipe, with what `auto` chose if it was trained."""
    written, config = params.train[recipe], layout.model(recipe) / CONFIG
    if written.automatic and config.is_file():
        try:
            written = written.fitted(int(json.loads(config.read_text("utf-8"))["samples"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{config} cannot be read ({error}); run `flame train` for it") from None
    return flat_params(params, layout, written)


def _of_folder(model: Path) -> RecordedModel:
    """A model's folder; with the params of the project around it, if they have the recipe that it was trained with."""
    try:
        config: dict[str, Any] = json.loads((model / CONFIG).read_text("utf-8"))
        trained = flatten({"train": config["recipe"]})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{model / CONFIG} cannot be read ({error}); run `flame train` for it") from None
    layout = Layout.find(model.parents[2])
    results = _results(layout.report(model.name)) if model.parent == layout.data / "models" else None
    if results is not None and layout.params.is_file():
        params = load_params(layout)
        whole = _flat(params, layout, model.name) if model.name in params.train else {}
        if trained.items() <= whole.items():
            return RecordedModel(whole, results)
    return RecordedModel(trained, results)


def _of_record(layout: Layout, name: str) -> dict[str, RecordedModel]:
    record = find_record(layout, name)
    with asking(require_tracking(layout)), TemporaryDirectory() as folder:
        results = None
        if any(file.path == REPORT for file in record.client.list_artifacts(record.run.info.run_id)):
            record.client.download_artifacts(record.run.info.run_id, REPORT, folder)
            results = _results(Path(folder) / REPORT)
    recipe = record.tags.get("flame.recipe", name)
    return {recipe: RecordedModel(record.run.data.params, results)}


def _results(report: Path) -> Results | None:
    return read_results(report) if (report / METRICS).is_file() else None
