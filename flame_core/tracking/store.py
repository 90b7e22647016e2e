"""Where MLflow keeps its records: by default SQLite and a folder below `.flame/mlflow/`, which `make ui` serves.

`FLAME_TRACKING_URI` names a server instead (`http://mlflow.example:5000`, any address MLflow takes), or `off`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core.errors import ResourceError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.journal import Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient

OFF = "off"
_SQLITE = "sqlite:///"
# Outages are the journal's business: a request fails soon instead of being tried for minutes.
_REQUESTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def local_store(layout: Layout) -> Path:
    """Folder of the embedded store: `mlflow.db` and `artifacts/`."""
    return layout.state / "mlflow"


def local_address(layout: Layout) -> str:
    """The tracking address of the embedded store."""
    return f"{_SQLITE}{local_store(layout) / 'mlflow.db'}"


def tracking_address(layout: Layout) -> str | None:
    """The tracking address of this run; None where tracking is off."""
    chosen = settings().tracking_uri
    if chosen == OFF:
        return None
    return chosen or local_address(layout)


def journals(layout: Layout) -> Path:
    """Folder of the journals of this run: a workspace has its own, so its trainings are never the main line's."""
    return layout.state / "tracking" / (layout.root.name if layout.is_workspace else "main")


def all_journals(layout: Layout) -> list[Journal]:
    """Every journal of the project and its workspaces, the oldest first."""
    return Journal.all(layout.state / "tracking")


def page_address(address: str) -> str:
    """Where the pages of a store are: the server itself, or what `make ui` starts for a local one."""
    here = settings()
    return address.rstrip("/") if address.startswith("http") else f"http://{here.ui_host}:{here.mlflow_port}"


def run_url(address: str, experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"{page_address(address)}/#/experiments/{experiment_id}/runs/{run_id}"


def version_url(address: str, name: str, version: str) -> str:
    """The page of a model version."""
    return f"{page_address(address)}/#/models/{name}/versions/{version}"


def require_tracking(layout: Layout) -> str:
    """The tracking address, for a command that is nothing without it.

    Raises:
        ResourceError: tracking is off.
    """
    address = tracking_address(layout)
    if address is None:
        raise ResourceError("tracking is off (FLAME_TRACKING_URI=off); this command reads MLflow's records")
    return address


def open_client(address: str) -> MlflowClient:
    """A client of the store; a local one is set up first, by one process at a time.

    Raises:
        ResourceError: MLflow is not installed.
    """
    for name, value in _REQUESTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient, set_registry_uri, set_tracking_uri
    except ImportError:
        # where the package is missing, the project's folder `mlflow/` imports as an empty namespace
        raise ResourceError(
            "MLflow is not installed; `make install` brings it, FLAME_TRACKING_URI=off does without"
        ) from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    set_tracking_uri(address)  # addresses like models:/flame@champion are resolved by what is set, not by the client
    set_registry_uri(address)
    if address.startswith(_SQLITE):
        from filelock import FileLock

        database = Path(address.removeprefix(_SQLITE))
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_suffix(".lock")):  # two first uses at once would both migrate the schema
            client = MlflowClient(address, address)
            client.search_experiments(max_results=1)
        return client
    return MlflowClient(address, address)


def experiment_id(client: MlflowClient, address: str) -> str:
    """The experiment of `FLAME_EXPERIMENT`, created where it is not there."""
    from mlflow.exceptions import MlflowException

    name = settings().experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None  # a server knows its own
        if address.startswith(_SQLITE):
            location = (Path(address.removeprefix(_SQLITE)).parent / "artifacts").as_uri()
        try:
            return client.create_experiment(name, location)
        except MlflowException as error:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    return found.experiment_id
