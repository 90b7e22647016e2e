"""Runs work in several processes, one per GPU: a training, on one node or several, or the files of an embedding store.

torch's elastic agent (used by `torchrun`) starts a module once per process, passes a stop signal on to all of them, and
ends the others when one dies. `launch` raises the error that a single process would have raised.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core import errors, pipes
from flame_core.digest import write_json
from flame_core.errors import FlameError, Interrupted, ResourceError
from flame_core.process_trees.stop_signals import on_stop_signals
from flame_core.processes.nodes import Nodes
from flame_core.settings import settings

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

_PARENT_SECONDS = 2.0  # between two checks that the launcher still runs


@dataclass(frozen=True)
class Launch:
    """What to start: `python -m <module> <file>`, where the file holds `job` and the module calls `serve`.

    Attributes:
        setting: the variable that sets the number of processes, for messages.
        again: what a second run does, for messages.
    """

    module: str
    job: str
    setting: str
    again: str


def launch(work: Launch, processes: int, nodes: Nodes | None = None) -> None:
    """Run `work` in `processes` processes of this node and wait for them; each of several nodes calls this.

    Raises:
        ResourceError: more processes than GPUs, a process was killed, or the nodes do not meet.
        Interrupted: a stop signal came.
        FlameError: the error that a process raised.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    _require_gpus(work, processes)
    _silence("torch.distributed.elastic")  # errors are raised here instead
    with tempfile.TemporaryDirectory(prefix="flame-launch-") as name, _environment(), _stops_as(SignalException):
        folder = Path(name)
        path = folder / "job.json"
        path.write_text(work.job, "utf-8")
        try:
            config = _config(processes, nodes, folder / "logs")
            if hasattr(config, "signals_to_handle"):  # of newer versions; `_stops_as` has the others
                config.signals_to_handle = "SIGTERM"
            elastic_launch(config, sys.executable)("-P", "-m", work.module, str(path))
        except ChildFailedError as error:
            raise _reported(folder) or _died(work, error, nodes) from None
        except DistError as error:
            if nodes is None:
                raise
            raise ResourceError(
                f"node {nodes.rank} of {nodes.count} did not meet the others at {nodes.host}:{nodes.port} within "
                f"{settings().join_seconds:g} s ({str(error).strip().splitlines()[0][:200]}). Is the same command "
                f"running on all nodes, and do they reach that port of node 0? Run again {work.again}"
            ) from None
        except SignalException:  # a process that has not begun, or did not stop in time, reports nothing
            raise _reported(folder) or Interrupted(f"stopped; run again {work.again}") from None


def _config(processes: int, nodes: Nodes | None, logs: Path) -> LaunchConfig:
    """How torch's agent starts processes. It restarts none: whoever started the run does, and it resumes.

    Args:
        processes: of this node.
        nodes: if there are several.
        logs: the agent's folder, which it never removes.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    own = DefaultLogsSpecs(log_dir=str(logs))
    if nodes is None:
        return LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=own,
        )
    # c10d would ask by the machine's name whether it is node 0, which fails with several networks or namespaces
    host = f"[{nodes.host}]" if ":" in nodes.host else nodes.host
    return LaunchConfig(
        min_nodes=nodes.count,
        max_nodes=nodes.count,
        nproc_per_node=processes,
        run_id="flame",
        rdzv_backend="static",
        rdzv_endpoint=f"{host}:{nodes.port}",
        rdzv_configs={"rank": nodes.rank, "timeout": math.ceil(settings().join_seconds)},
        max_restarts=0,
        logs_specs=own,
    )


def serve(work: Callable[[str, int], None]) -> int:
    """Run `work(job, rank)` in a process that `launch` started, report its error, and return the exit code."""
    from flame_core.reporting import configure_logging

    rank, path = int(os.environ["RANK"]), Path(sys.argv[1])
    configure_logging(settings().log_level if rank == 0 else "WARNING")
    threading.Thread(target=_end_with, args=(os.getppid(), path.parent), daemon=True).start()
    try:
        work(path.read_text("utf-8"), rank)
    except FlameError as error:
        write_json(_error_file(path.parent, rank), {"code": error.exit_code, "message": str(error)})
        return error.exit_code
    return 0


def _end_with(parent: int, folder: Path) -> None:
    """End this process when its parent is gone: a killed launcher leaves no process behind, and not its folder."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _error_file(folder: Path, rank: int) -> Path:
    """Where a process writes the error that ended it."""
    return folder / f"error-{rank:05}.json"


def _require_gpus(work: Launch, processes: int) -> None:
    import torch

    if settings().torch_device() == "cuda" and torch.cuda.device_count() < processes:
        raise ResourceError(
            f"{work.setting}={processes}, but there are {torch.cuda.device_count()} GPUs: at most one process per GPU"
        )


def _reported(folder: Path) -> FlameError | None:
    """The error reported by the lowest rank of this node that reported one."""
    for path in sorted(folder.glob("error-*.json")):
        record = json.loads(path.read_text("utf-8"))
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlameError)]
        return next(kind for kind in kinds if kind.exit_code == record["code"])(record["message"])
    return None


def _died(work: Launch, error: object, nodes: Nodes | None) -> FlameError:
    failures: dict[int, object] = getattr(error, "failures", {})
    codes = ", ".join(f"rank {rank}: {getattr(each, 'exitcode', '?')}" for rank, each in sorted(failures.items()))
    elsewhere = "" if nodes is None else "; if another node says more, that is the reason"
    return ResourceError(
        f"one of the processes ended ({codes}); a negative code is the signal that killed it, -9 usually because "
        f"memory ran out{elsewhere}. Run again {work.again}"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """Set what the processes inherit: only the launcher reports to Dagster, and the agent waits while they save."""
    changed = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(settings().stop_grace_seconds * 0.9)))}
    old = {name: os.environ.get(name) for name in (*changed, pipes.VARIABLE)}
    os.environ.update(changed)
    os.environ.pop(pipes.VARIABLE, None)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _silence(package: str) -> None:
    """Log nothing of a package below CRITICAL; torch gives each of its loggers a level of its own."""
    for name in [package, *logging.root.manager.loggerDict]:
        if name == package or name.startswith(f"{package}."):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _stops_as(kind: Callable[[str, signal.Signals], BaseException]) -> AbstractContextManager[None]:
    """Raise `kind` on every stop signal; the agent then sends SIGTERM to the processes, whichever signal it was.

    A process that is still importing ends by SIGTERM without a word, and by SIGINT with a traceback. The handlers are
    restored, because the agent leaves its own behind.
    """

    def stop(number: int) -> None:
        raise kind(signal.Signals(number).name, signal.SIGTERM)

    return on_stop_signals(stop, signal.SIGQUIT)
