"""Work on several processes of this machine, one a GPU: a training, or the files of an embedding store.

torch's elastic agent (what `torchrun` runs) starts a module once a process, passes a stop signal on to all of them, and
ends the others when one dies. Errors come back as the error that a single process would have raised.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flame_core import errors, pipes
from flame_core.digest import write_json
from flame_core.errors import FlameError, Interrupted, ResourceError
from flame_core.settings import settings

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # that the agent takes over
_PARENT_SECONDS = 2.0  # between two looks whether the launcher is still there


@dataclass(frozen=True)
class Launch:
    """What is started: `python -m <module> <file>`, the file holding `job`, which calls `serve`.

    Attributes:
        setting: the variable that asked for the processes, for messages.
        again: what a second run does, for messages.
    """

    module: str
    job: str
    setting: str
    again: str


def launch(work: Launch, processes: int) -> None:
    """Run it on so many processes, to the end.

    Raises:
        ResourceError: more processes than GPUs, or a process was killed.
        Interrupted: a stop signal came.
        FlameError: what a process raised.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _require_gpus(work, processes)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # errors are raised here instead
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    with tempfile.TemporaryDirectory(prefix="flame-launch-") as name, _environment(), _signals_kept():
        folder = Path(name)
        path = folder / "job.json"
        path.write_text(work.job, "utf-8")
        try:
            elastic_launch(config, sys.executable)("-P", "-m", work.module, str(path))
        except ChildFailedError as error:
            raise _reported(folder, processes) or _died(work, error) from None
        except SignalException as error:
            raise _reported(folder, processes) or Interrupted(
                f"{error}: the processes did not end by themselves; run again {work.again}"
            ) from None


def serve(work: Callable[[str, int], None]) -> int:
    """In a process that `launch` started: do `work(job, rank)`, report its error; returns the exit code."""
    from flame_core.reporting import configure_logging

    rank, path = int(os.environ["RANK"]), Path(sys.argv[1])
    configure_logging(settings().log_level if rank == 0 else "WARNING")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        work(path.read_text("utf-8"), rank)
    except FlameError as error:
        write_json(_error_file(path.parent, rank), {"code": error.exit_code, "message": str(error)})
        return error.exit_code
    return 0


def _end_with(parent: int) -> None:
    """A launcher that was killed leaves no process behind."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _error_file(folder: Path, rank: int) -> Path:
    """Where a process writes the error that it ended with."""
    return folder / f"error-{rank:05}.json"


def _require_gpus(work: Launch, processes: int) -> None:
    import torch

    if settings().torch_device() == "cuda" and torch.cuda.device_count() < processes:
        raise ResourceError(
            f"{work.setting}={processes}, but there are {torch.cuda.device_count()} GPUs: one process a GPU"
        )


def _reported(folder: Path, processes: int) -> FlameError | None:
    """The error that the first of the processes reported."""
    for rank in range(processes):
        path = _error_file(folder, rank)
        if path.is_file():
            record = json.loads(path.read_text("utf-8"))
            kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlameError)]
            return next(kind for kind in kinds if kind.exit_code == record["code"])(record["message"])
    return None


def _died(work: Launch, error: object) -> FlameError:
    failures: dict[int, object] = getattr(error, "failures", {})
    codes = ", ".join(f"rank {rank}: {getattr(each, 'exitcode', '?')}" for rank, each in sorted(failures.items()))
    return ResourceError(
        f"one of the processes ended ({codes}); below 0 is the signal that killed it, 9 mostly for want of memory. "
        f"Run again {work.again}"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """What the processes inherit: only the launcher talks to Dagster, and the agent waits while they save."""
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


@contextmanager
def _signals_kept() -> Iterator[None]:
    """The agent leaves its signal handlers behind."""
    old = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
