"""Ends the processes of `flame ui` if `flame ui` itself was killed (`kill -9`, out of memory).

`servers.py` starts this process with the servers and holds the other end of its standard input, which closes when it
ends:

    python -m orchestration.ui.watch <token of the servers> <DAGSTER_HOME>
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from flame_core.process_trees.tree import ProcessTree
from flame_core.reporting import configure_logging
from flame_core.settings import settings

if TYPE_CHECKING:
    import dagster as dg

DAEMON = "dagster._daemon"  # the module that starts runs
STOP_SECONDS = 20.0  # for a server to end on its own
log = logging.getLogger("flame_core.ui")


def end_daemon(tree: ProcessTree) -> None:
    """End Dagster's daemon: it would start queued runs, and those of schedules and sensors, while the others end."""
    asked: set[int] = set()
    deadline = time.monotonic() + STOP_SECONDS
    while (found := list(filter(_is_daemon, tree.members()))) and time.monotonic() < deadline:
        for process in found:
            if process.pid not in asked:
                asked.add(process.pid)
                with suppress(psutil.Error):  # it has ended meanwhile
                    process.terminate()
        time.sleep(0.1)


def _is_daemon(process: psutil.Process) -> bool:
    try:
        return DAEMON in process.cmdline()
    except psutil.Error:
        return False


def end_runs(home: Path, tree: ProcessTree) -> None:
    """Terminate the runs in progress that the interface started, and wait for them; a training writes a checkpoint.

    A run whose process has ended already, and that nobody reported, is failed: its steps then stop by themselves.

    Args:
        home: DAGSTER_HOME.
        tree: of the servers, to which the processes of their runs belong.

    Raises:
        ResourceError: the history cannot be read.
    """
    import dagster as dg

    from orchestration.instance import PROCESS_TAG, UNFINISHED, fail_killed, history_errors

    with history_errors(home), dg.DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        runs = [run for run in found if PROCESS_TAG not in run.tags]  # not runs of a shell
        for run in runs:
            if run.status is not dg.DagsterRunStatus.CANCELING:  # which somebody has asked already
                grace = settings().stop_grace_seconds
                log.info("terminating run %s (%s); up to %.0f s", run.run_id[:8], run.job_name, grace)
                _terminate(instance, run.run_id, tree)
        pids = {run.run_id: _pids(instance, run.run_id) for run in runs}
        deadline = time.monotonic() + settings().stop_grace_seconds + STOP_SECONDS
        while runs and time.monotonic() < deadline:
            time.sleep(0.5)
            alive = {process.pid for process in tree.members()}  # a process reports its end before it ends
            runs = [run for run in runs if not _finished(instance, run.run_id)]
            for run in runs:
                if pids[run.run_id] and alive.isdisjoint(pids[run.run_id]):
                    fail_killed(instance, run)


def _terminate(instance: dg.DagsterInstance, run_id: str, tree: ProcessTree) -> None:
    """Ask a run to end: through the code server, or, if that has ended, as the code server would."""
    from dagster._core.errors import DagsterUserCodeUnreachableError

    try:
        instance.run_launcher.terminate(run_id)
    except DagsterUserCodeUnreachableError:
        pids = _pids(instance, run_id)
        for process in tree.members():
            if process.pid in pids:
                with suppress(psutil.Error):  # it has ended meanwhile
                    process.send_signal(signal.SIGINT)


def _pids(instance: dg.DagsterInstance, run_id: str) -> set[int]:
    """The processes of a run, without those of its steps; empty as long as none has begun."""
    from dagster import DagsterEventType

    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)]
    told = [event.engine_event_data.metadata.get("pid") for event in events if event and not event.step_key]
    return {int(str(pid.value)) for pid in told if pid}


def end_in_order(tree: ProcessTree, home: Path) -> None:
    """End what a killed `flame ui` left: no new run begins, runs end, then servers.

    Raises:
        ResourceError: as `end_runs`; the processes have ended all the same.
    """
    try:
        end_daemon(tree)
        end_runs(home, tree)
    finally:
        tree.stop(None, STOP_SECONDS, log.info)


def _finished(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


def main() -> None:
    """Wait for the end of `flame ui`, then end the processes it left."""
    configure_logging(settings().log_level)
    tree, home = ProcessTree.of(sys.argv[1]), Path(sys.argv[2])
    sys.stdin.buffer.read()
    if not tree.members():
        return
    log.warning("flame ui was killed; ending its runs and servers")
    end_in_order(tree, home)


if __name__ == "__main__":
    main()
