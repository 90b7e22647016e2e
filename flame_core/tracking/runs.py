"""Finds the run that made a model (named by version, run or folder), and the files it recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from flame_core.absent_outs import absent
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.settings import settings
from flame_core.tracking.obstacles import read_experiment
from flame_core.tracking.registry import MODEL_TAG, find_version
from flame_core.tracking.store import asking, open_client, require_tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


_UNKNOWN = {
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_PARAMETER_VALUE",
    "ENDPOINT_NOT_FOUND",
}  # MLflow's codes for unknown names

SEND_AGAIN = (
    "put the folder or bucket of its artifacts back, or send again what this project's trainings recorded: `flame "
    "tracking replay --all`"
)


@dataclass(frozen=True)
class Record:
    """What MLflow recorded about a model.

    Attributes:
        address: the store's.
        client: the store's.
        run: the run that trained it.
        version: its version of the registered model; None if it has none.
    """

    address: str
    client: MlflowClient
    run: Run
    version: ModelVersion | None

    @property
    def tags(self) -> dict[str, str]:
        return self.run.data.tags

    @contextmanager
    def files(self) -> Iterator[Path]:
        """A folder with the run's artifacts, while the context is open."""
        with TemporaryDirectory() as folder:
            self.client.download_artifacts(self.run.info.run_id, "", folder)
            yield Path(folder)


def find_record(layout: Layout, name: str) -> Record:
    """The record of `models:/flame@champion`, `models:/flame/3`, `runs:/<id>`, or a model's folder.

    Raises:
        InputError: MLflow knows no such model.
        ResourceError: tracking is off, or MLflow does not answer.
    """
    address = require_tracking(layout)
    with asking(address):
        return _find_record(layout, name, address)


def _find_record(layout: Layout, name: str, address: str) -> Record:
    from mlflow.exceptions import MlflowException

    client = open_client(address)
    try:
        if name.startswith("models:/"):
            version = _version(client, name.removeprefix("models:/"))
            return Record(address, client, client.get_run(str(version.run_id)), version)
        if name.startswith("runs:/"):
            return _with_version(address, client, client.get_run(name.removeprefix("runs:/")))
    except MlflowException as error:
        if error.error_code not in _UNKNOWN:
            raise
        raise InputError(f"{name}: {error.message}") from None
    weights = Path(name).resolve() / WEIGHTS
    if not weights.is_file():  # from a subfolder, the path may also be written as from the root
        weights = layout.root / name / WEIGHTS
    if not weights.is_file():
        raise InputError(
            f"{name!r} is not a model: write models:/<name>@<alias>, models:/<name>/<version>, runs:/<id>, or the "
            f"folder of a model ({absent(weights)})"
        )
    sha256 = file_sha256(weights)
    run = _run_that_made(client, address, sha256)
    if run is None:
        raise InputError(f"no run at {address} made {weights} (sha256 {sha256[:12]})")
    return _with_version(address, client, run)


def _run_that_made(client: MlflowClient, address: str, sha256: str) -> Run | None:
    """The newest run whose model has these weights; a deleted one only if there is no other."""
    from mlflow.entities import ViewType

    if (experiment := read_experiment(client, address)) is None:
        return None
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
        if found := client.search_runs([experiment.experiment_id], f"tags.`{MODEL_TAG}` = '{sha256}'", view):
            return found[0]
    return None


def _version(client: MlflowClient, name: str) -> ModelVersion:
    model, at, alias = name.partition("@")
    if at:
        return client.get_model_version_by_alias(model, alias)
    model, slash, number = name.partition("/")
    if not slash:
        raise InputError(f"models:/{name}: name a version (models:/{name}/1) or an alias (models:/{name}@champion)")
    return client.get_model_version(model, number)


def _with_version(address: str, client: MlflowClient, run: Run) -> Record:
    sha256, name = run.data.tags.get(MODEL_TAG), settings().registered_model
    found = find_version(client, name, sha256) if sha256 else None
    # a search does not return aliases
    return Record(address, client, run, client.get_model_version(name, str(found.version)) if found else None)


def read_artifact(folder: Path, name: str) -> dict[str, Any]:
    """A file of YAML or JSON among a run's artifacts.

    Raises:
        InputError: the run did not record it, or it is gone or damaged.
    """
    path = folder / name
    if not any(folder.iterdir()):
        raise InputError(f"MLflow has none of the run's files: {SEND_AGAIN}")
    if not path.is_file():
        raise InputError(
            f"MLflow has no {name} of the run. A model that was only trained has none: run `flame evaluate`. If the "
            f"run recorded it (`flame run`, `dvc repro` and Dagster do), {SEND_AGAIN}"
        )
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{name} of the run is damaged in MLflow ({first}): {SEND_AGAIN}") from None
