"""Where MLflow keeps its records: by default SQLite and a folder below `.flame/mlflow/`, which `flame ui` serves.

`FLAME_TRACKING_URI` names a server instead (`http://mlflow.example:5000`, any address MLflow accepts), or `off`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core.errors import FlameError, ParamsError, ResourceError, is_of
from flame_core.files.disk_errors import MAKE_ROOM, SQLITE_FULL, disk_error, make_folder
from flame_core.files.whole_folders import scratch
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.address import (
    POSTGRES,
    is_server,
    lacks_driver,
    login,
    sqlite_address,
    sqlite_path,
    without_login,
    without_secrets,
)
from flame_core.tracking.journal import Journal
from flame_core.tracking.relocation import ARTIFACTS, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient

OFF = "off"
# The journal handles outages, so a request should fail soon instead of being retried for minutes.
_REQUESTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
# Packages whose errors come from a store: MLflow, and its libraries for databases, servers and artifacts.
_LIBRARIES = {"mlflow", "sqlalchemy", "sqlite3", "alembic", "requests", "urllib3", "filelock", "botocore", "psycopg2"}
_OTHER_SCHEMA = ("out-of-date database schema", "Can't locate revision")
_DAMAGED = ("database disk image is malformed", "file is not a database")  # as SQLite says it
_DENIED = re.compile(r"API request to endpoint (\S+) failed with error code (401|403)")  # as MLflow's client says it
_SHOWN = 400  # characters of an error
log = logging.getLogger(__name__)


def local_store(layout: Layout) -> Path:
    """Folder of the embedded store: `mlflow.db` and `artifacts/`."""
    return layout.state / "mlflow"


def local_address(layout: Layout) -> str:
    """The tracking address of the embedded store."""
    return sqlite_address(local_store(layout) / "mlflow.db")


def tracking_address(layout: Layout) -> str | None:
    """The tracking address of this run, without user and password; None if tracking is off.

    Only `open_client` reads the login from the setting, so it cannot get into records or messages.

    Raises:
        ParamsError: the setting cannot be read.
    """
    chosen = settings().tracking_uri
    if chosen == OFF:
        return None
    if not chosen:
        return local_address(layout)
    if lacks_driver(chosen):
        raise ParamsError(
            f"FLAME_TRACKING_URI names no driver for PostgreSQL; write {POSTGRES}... (the extra `postgres`)"
        )
    try:
        return without_login(chosen)
    except ValueError:  # its message may contain a part of the password
        raise ParamsError(
            "FLAME_TRACKING_URI cannot be read; write http://user:password@host:port with /, @, : and % of the "
            "password as %2F, %40, %3A and %25, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        ) from None


def journals(layout: Layout) -> Path:
    """Folder of the journals of this run; a workspace has its own, separate from the main line's."""
    return layout.state / "tracking" / (layout.root.name if layout.is_workspace else "main")


def all_journals(layout: Layout) -> list[Journal]:
    """Every journal of the project and its workspaces, the oldest first."""
    return Journal.all(layout.state / "tracking")


def warn_of_waiting(layout: Layout) -> None:
    """Say how many events have not arrived in MLflow, if there are any."""
    if (address := tracking_address(layout)) is None:
        return
    if waiting := sum(journal.pending(address) for journal in all_journals(layout)):
        log.warning("%d events have not arrived in MLflow yet; `flame tracking replay` sends them", waiting)


def require_tracking(layout: Layout) -> str:
    """The tracking address, for a command that needs it.

    Raises:
        ParamsError: the records would be those of a project, and there is none.
        ResourceError: tracking is off.
    """
    address = tracking_address(layout)
    if address is None:
        raise ResourceError("tracking is off (FLAME_TRACKING_URI=off); this command reads MLflow's records")
    if address == local_address(layout) and not (layout.params.is_file() or local_store(layout).is_dir()):
        raise ParamsError(f"{layout.root} is no project, so it has no records: go to one (`flame init` makes one)")
    return address


@contextmanager
def asking(address: str) -> Iterator[None]:
    """Turn an error of a store in the context into one sentence with the store's address.

    Raises:
        ResourceError: the store cannot be reached, or fails.
    """
    try:
        yield
    except FlameError:
        raise
    except Exception as error:
        if not is_of(error, _LIBRARIES):
            raise
        raise ResourceError(trouble(address, error)) from error


def trouble(address: str, error: BaseException) -> str:
    """A store's error as one sentence, without passwords."""
    if isinstance(error, OSError) and (refused := disk_error(error)) is not None:
        return f"MLflow at {address}: {refused}"
    said = without_secrets(str(error), settings().tracking_uri).strip()
    if any(sign in said for sign in _OTHER_SCHEMA):
        from mlflow.version import VERSION

        return (
            f"MLflow at {address}: its schema belongs to another MLflow version than {VERSION}, which is installed. "
            f"Back the database up, then run `mlflow db upgrade '{address}'`; if a newer MLflow wrote it, install that"
        )
    if any(sign in said for sign in _DAMAGED):
        return (
            f"MLflow at {address}: its database is damaged. Move the file away; then `flame tracking replay --all` "
            "sends again what this project's trainings recorded"
        )
    if SQLITE_FULL in said:
        return f"MLflow at {address}: its disk is full. {MAKE_ROOM}"
    if denied := _DENIED.search(said):
        if denied[2] == "401":
            return (
                f"MLflow at {address} asks for a login, or does not accept this one: write it into FLAME_TRACKING_URI "
                "(http://user:password@host), or into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return (
            f"MLflow at {address}: this user may not do that ({denied[1]}). An admin can allow it "
            "(docs/mlflow-server.md, Users and passwords)"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip(" #") and not line.startswith("#")]
    lines = lines or [type(error).__name__]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]  # the next line says what it announces
    return f"MLflow at {address} failed: {first[:_SHOWN]}"


def open_client(address: str) -> MlflowClient:
    """A client of the store; a local one is set up first, by one process at a time.

    Raises:
        ResourceError: MLflow is not installed, or the store cannot be used (another version's schema, for example).
    """
    for name, value in _REQUESTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient, set_registry_uri, set_tracking_uri
    except ImportError:
        raise ResourceError(
            "MLflow is not installed: `pip install 'flame-mlops[pipeline]'`, or set FLAME_TRACKING_URI=off to work "
            "without it"
        ) from None
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = _with_login(address)
    database = sqlite_path(address)
    with asking(address):
        set_tracking_uri(uri)  # MLflow resolves models:/flame@champion with this setting, not with the client
        set_registry_uri(uri)
        if database is None:
            return MlflowClient(uri, uri)
        from filelock import FileLock

        make_folder(database.parent, "MLflow")
        with FileLock(database.with_suffix(".lock")):  # two first uses at once would both migrate the schema
            take_upgrade_back(database)
            if moved := relocate(database):
                log.info("the tracking store was moved from %s; its records now name this place", moved[0])
            if not database.exists():
                make_database(database)
            client = MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
        return client


def make_database(database: Path) -> None:
    """Make an empty store elsewhere and rename it into place: MLflow cannot go on with a schema that is half made."""
    from mlflow import MlflowClient

    with scratch(database.parent) as folder:
        made = folder / database.name
        address = sqlite_address(made)
        MlflowClient(address, address).search_experiments(max_results=1)
        made.rename(database)


def before_upgrade(database: Path) -> Path:
    """Where a database is kept while its schema is upgraded (`prepared_store.py`)."""
    return database.with_name(f"{database.name}.before-upgrade")


def take_upgrade_back(database: Path) -> None:
    """Bring the database of an upgrade that was cut back; nothing was written since, for want of a whole schema."""
    if before_upgrade(database).exists():
        for ending in ("-wal", "-shm", "-journal"):  # of the state that is given up
            database.with_name(database.name + ending).unlink(missing_ok=True)
        before_upgrade(database).replace(database)


def _with_login(address: str) -> str:
    """The address for MLflow itself. A server's login goes into the environment, where MLflow expects it."""
    chosen = settings().tracking_uri
    found = login(chosen) if chosen else None
    if not chosen or chosen == OFF or without_login(chosen) != address:
        return address
    if not is_server(address):
        return chosen  # a database; SQLAlchemy does not show its password
    if found:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = found
    return address


def experiment_id(client: MlflowClient, address: str) -> str:
    """The id of the experiment `FLAME_EXPERIMENT`, created if it does not exist; it may be a deleted one."""
    from mlflow.exceptions import MlflowException

    name = settings().experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        database = sqlite_path(address)  # a server knows its own location
        location = (database.parent / ARTIFACTS).absolute().as_uri() if database else None
        try:
            return client.create_experiment(name, location)
        except MlflowException as error:  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    return found.experiment_id
