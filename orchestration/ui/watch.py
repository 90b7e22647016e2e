"""Ends the processes of `flame ui` if `flame ui` itself was killed (`kill -9`, out of memory).

`servers.py` starts this process with the servers and holds the other end of its standard input, which closes when it
ends:

    python -m orchestration.ui.watch <token of the servers> <DAGSTER_HOME>
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from flame_core.reporting import configure_logging
from flame_core.settings import settings
from orchestration.processes.tree import ProcessTree

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


def end_runs(home: Path) -> None:
    """Terminate the runs in progress that the interface started, and wait for them; a training writes a checkpoint.

    Raises:
        ResourceError: the history cannot be read.
    """
    import dagster as dg

    from orchestration.instance import PROCESS_TAG, history_errors

    active = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    with history_errors(home), dg.DagsterInstance.from_config(str(home)) as instance:
        runs = [run for run in instance.get_runs(active) if PROCESS_TAG not in run.tags]  # not runs of a shell
        for run in runs:
            log.info(
                "terminating run %s (%s); up to %.0f s", run.run_id[:8], run.job_name, settings().stop_grace_seconds
            )
            instance.run_launcher.terminate(run.run_id)
        deadline = time.monotonic() + settings().stop_grace_seconds + STOP_SECONDS
        while runs and time.monotonic() < deadline:
            time.sleep(0.5)
            runs = [run for run in runs if not _finished(instance, run.run_id)]


def _finished(instance: object, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)  # type: ignore[attr-defined]
    return run is None or run.is_finished


def main() -> None:
    """Wait for the end of `flame ui`, then end the processes it left."""
    configure_logging(settings().log_level)
    tree, home = ProcessTree.of(sys.argv[1]), Path(sys.argv[2])
    sys.stdin.buffer.read()
    if not tree.members():
        return
    log.warning("flame ui was killed; ending its runs and servers")
    try:
        end_daemon(tree)
        end_runs(home)
    finally:
        tree.stop(None, STOP_SECONDS, log.info)


if __name__ == "__main__":
    main()
