"""Dagster's instance, `.flame/dagster/`: one history of runs, shared by `flame ui` and `make demo`.

A run that was killed (SIGKILL) cannot report its end, so it would remain "started" forever and keep its slot in a pool.
A run in a shell therefore has its process as a tag, and the next process that opens the instance ends dead runs.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from flame_core.dvc_project.errors import PROJECT_FILE
from flame_core.errors import ParamsError, ResourceError, is_of
from flame_core.files.disk_errors import MAKE_ROOM, SQLITE_FULL, make_folder
from flame_core.files.whole_files import put
from flame_core.layout import Layout
from flame_core.params.yaml_text import read_yaml_file
from flame_core.tracking.address import POSTGRES, lacks_driver, without_secrets
from orchestration.dagster_dvc.never_ran import withdraw_unstarted

CONFIGURATION = "dagster.yaml"
PROCESS_TAG = "flame/process"  # host, pid and start time of the process that executes a run
UNFINISHED = [*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.CANCELING]
# Packages whose errors come from the history's database.
_LIBRARIES = {"sqlalchemy", "sqlite3", "alembic", "psycopg2", "dagster_postgres"}
_DAMAGED = ("file is not a database", "database disk image is malformed")
_SHOWN = 300  # characters of another package's message
_IN_A_SHELL: Any = {
    "compute_logs": {  # leaves the terminal to the stages
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}


def instance_home(layout: Layout) -> Path:
    """DAGSTER_HOME of the project, with its configuration: the project's own `dagster.yaml` if it has one, or ours."""
    home = layout.state / "dagster"
    if wrong := sorted(set(str(home)) & set("%#?")):
        raise ResourceError(f"{home}: Dagster cannot work in a path with {' '.join(wrong)}; rename the folder")
    make_folder(home, "Dagster")
    own = layout.project / CONFIGURATION
    if own.is_file():
        _check_driver(own)
    put(home / CONFIGURATION, (own if own.is_file() else Path(__file__).with_name(CONFIGURATION)).read_bytes())
    return home


def _check_driver(configuration: Path) -> None:
    """Refuse what is no YAML, and a PostgreSQL storage without a driver; Dagster would fail with a missing module."""
    content = read_yaml_file(configuration)
    try:
        postgres = content["storage"]["postgres"]
        url, parts = postgres.get("postgres_url"), postgres.get("postgres_db")
    except (TypeError, KeyError, AttributeError):
        return  # no such storage, or Dagster says what is wrong with the file
    missing = None
    if isinstance(url, str) and lacks_driver(url):
        missing = f"`postgres_url` must begin with {POSTGRES}"
    elif isinstance(parts, dict) and "scheme" not in parts:
        missing = f"add `scheme: {POSTGRES.removesuffix('://')}` to `postgres_db`"
    if missing:
        raise ParamsError(f"{configuration}, storage.postgres: names no driver for PostgreSQL; {missing}")


@contextmanager
def opened(layout: Layout, overrides: dict[str, Any] | None = None) -> Iterator[dg.DagsterInstance]:
    """The instance, with other values in place of some of its configuration.

    Raises:
        ParamsError: its configuration cannot be used.
        ResourceError: as `history_errors`.
    """
    home = instance_home(layout)
    with history_errors(home), _open(home, layout, overrides) as instance:
        yield instance


def _open(home: Path, layout: Layout, overrides: dict[str, Any] | None) -> dg.DagsterInstance:
    try:
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))
    except dg.DagsterInvalidConfigError as error:
        own = layout.project / CONFIGURATION
        said = "; ".join(each.message for each in error.errors) or str(error)
        file = own if own.is_file() else home / CONFIGURATION
        raise ParamsError(f"{file}: {' '.join(said.split())[:_SHOWN]}") from None


@contextmanager
def history_errors(home: Path) -> Iterator[None]:
    """Turn an error of the history's database in the context into one sentence.

    Raises:
        ResourceError: the database is full, damaged or locked, or does not answer.
    """
    try:
        yield
    except Exception as error:
        if not is_of(error, _LIBRARIES):
            raise
        raise ResourceError(_trouble(home, error)) from error


def _trouble(home: Path, error: Exception) -> str:
    said = str(error)
    if SQLITE_FULL in said:
        return f"Dagster's history in {home} cannot be written: {SQLITE_FULL}. {MAKE_ROOM}"
    if damage := next((sign for sign in _DAMAGED if sign in said), None):
        return (
            f"Dagster's history in {home} is damaged ({damage}). Move the folder away: a new history is begun, and no "
            "result is lost"
        )
    if error.__cause__ and type(error).__module__.startswith("dagster_postgres"):
        said = str(error.__cause__)
    lines = without_secrets(said, None).strip().splitlines() or [type(error).__name__]
    return f"Dagster's history ({home / CONFIGURATION} says where it is) failed: {lines[0][:_SHOWN]}"


@contextmanager
def opened_in_shell(layout: Layout) -> Iterator[dg.DagsterInstance]:
    """The instance for a run in this process."""
    with opened(layout, _IN_A_SHELL) as instance:
        set_up_pools(instance, layout)
        end_dead_runs(instance)
        yield instance


def set_up_pools(instance: dg.DagsterInstance, layout: Layout) -> None:
    """Create the pools that `dvc.yaml` names, with the default limit, unless they exist.

    Dagster creates a pool when a step first asks for it; until then nobody can see it or change its limit.
    """
    storage = instance.event_log_storage
    there = {limit.name for limit in storage.get_pool_limits()}
    for pool in sorted(_pools(layout) - there):
        storage.initialize_concurrency_limit_to_default(pool)


def _pools(layout: Layout) -> set[str]:
    try:
        stages = yaml.safe_load((layout.root / PROJECT_FILE).read_text("utf-8"))["stages"].values()
        return {pool for stage in stages if (pool := stage.get("meta", {}).get("dagster", {}).get("pool"))}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return set()  # who loads the definitions says what is wrong with it


def process_tag() -> dict[str, str]:
    """The tag of a run that this process executes."""
    return {PROCESS_TAG: _process(psutil.Process())}


def end_dead_runs(instance: dg.DagsterInstance, *, servers_are_down: bool = False) -> None:
    """Fail the unfinished runs whose process has ended, and free their slots in pools.

    Args:
        instance: the project's.
        servers_are_down: whether no server of this project is up, so that no run of the interface can be alive.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        process = run.tags.get(PROCESS_TAG)
        if (servers_are_down and process is None) or (process is not None and _has_ended(process)):
            fail_killed(instance, run)


def fail_killed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Fail a run whose process was killed, and free its slots in pools."""
    instance.report_run_failed(run, "Its process was killed. The results of finished stages are kept.")
    withdraw_unstarted(instance, run.run_id)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _process(process: psutil.Process) -> str:
    return f"{socket.gethostname()}:{process.pid}:{_start(process)}"


def _start(process: psutil.Process) -> str:
    """When a process started, by a clock that nobody sets: on Linux in ticks since the machine started.

    There, its time of day is computed from the present time, so it changes whenever the clock is put right.
    """
    try:
        return Path(f"/proc/{process.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return f"{process.create_time():.2f}"


def _has_ended(tag: str) -> bool:
    """Whether a process on this machine has ended; one on another machine may be alive."""
    host, _, rest = tag.partition(":")
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(rest.partition(":")[0]))
        return process.status() == psutil.STATUS_ZOMBIE or _process(process) != tag
    except (psutil.Error, ValueError):
        return True


@contextmanager
def only_interface(home: Path) -> Iterator[None]:
    """A lock held by `flame ui`: a second one in the same project would take the first one's sockets.

    Raises:
        ResourceError: another `flame ui` runs; names its process.
    """
    with (home / "ui.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ResourceError(f"`flame ui` already runs for this project (process {file.read().strip()})") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
