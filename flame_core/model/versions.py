"""The packaged model of a version in MLflow, copied once into the work cache of the project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.tracking.address import sqlite_path
from flame_core.tracking.registry import CHALLENGER, CHAMPION, PACKAGE, number_with
from flame_core.tracking.runs import find_record
from flame_core.tracking.store import asking, open_client, require_tracking
from flame_core.work import UnitRecord, WorkCache


class Package(NamedTuple):
    """The folder of a packaged model, and the version it is of, `models:/flame/3`."""

    folder: Path
    version: str


def package_of(layout: Layout, name: str) -> Package:
    """The packaged model `models:/flame@champion`, `models:/flame/3` or `runs:/<id>`.

    Raises:
        InputError: MLflow knows no such model, or the alias is not given yet.
        ResourceError: tracking is off, or MLflow does not answer.
    """
    address = require_tracking(layout)
    database = sqlite_path(address)
    if database is not None and not database.is_file():
        raise InputError(
            f"{name}: {database} does not exist, so no model was recorded here. Work in the folder of the project "
            "(in Python: `load(..., project=...)`), or train one with `flame run`"
        )
    _require_alias(address, name)
    version = find_record(layout, name).version
    if version is None:
        raise InputError(f"{name}: this run has no version of a registered model; `flame register` makes one")

    def write(folder: Path) -> UnitRecord:
        from mlflow.artifacts import download_artifacts

        uri = f"models:/{version.name}/{version.version}/artifacts/{PACKAGE}"
        found = Path(download_artifacts(uri, dst_path=str(folder / "fetched")))
        for path in sorted(found.iterdir()):
            path.rename(folder / path.name)
        shutil.rmtree(folder / "fetched")
        return UnitRecord({"version": int(version.version)})

    inputs = {"package": version.name, "version": str(version.version), "source": version.source}
    with asking(address):
        folder = WorkCache(layout.work, "query").get(inputs, write).folder
    return Package(folder, f"models:/{version.name}/{version.version}")


def _require_alias(address: str, name: str) -> None:
    """Say how a version gets an alias that none has, and which names there are."""
    model, at, alias = name.removeprefix("models:/").partition("@")
    if not at or not name.startswith("models:/"):
        return
    with asking(address):
        client = open_client(address)
        known = sorted(each.name for each in client.search_registered_models())
        if model not in known:
            there = f"it has {', '.join(known)}" if known else "it has none; `flame run` trains and registers one"
            raise InputError(f"{name}: MLflow at {address} has no registered model {model!r}: {there}")
        if number_with(client, model, alias) is not None:
            return
        message = f"{name}: no version of {model} is {alias}"
        if alias == CHAMPION:
            message += "; `flame promote` makes the challenger champion if the gate allows it"
        if alias != CHALLENGER and (number := number_with(client, model, CHALLENGER)):
            message += f". Until then take models:/{model}@{CHALLENGER} (version {number})"
        raise InputError(message)
