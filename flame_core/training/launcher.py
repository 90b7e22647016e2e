"""A training on several processes of this machine, one a GPU: `FLAME_TRAIN_PROCESSES=8 flame train flame`.

torch's elastic agent (what `torchrun` runs) starts `job` once a process, passes a stop signal on to all of them, and
ends the others when one dies. Errors come back as the error that a single process would have raised.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flame_core import errors, pipes
from flame_core.errors import FlameError, Interrupted, ResourceError
from flame_core.settings import settings
from flame_core.training.job import TrainingJob, error_file

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # that the agent takes over


def launch(job: TrainingJob, processes: int) -> None:
    """Run a job on so many processes.

    Raises:
        ResourceError: more processes than GPUs, or a process was killed.
        Interrupted: a stop signal came; the state was saved.
        FlameError: what a process raised.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _require_gpus(processes)
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
    with tempfile.TemporaryDirectory(prefix="flame-train-") as name, _environment(), _signals_kept():
        folder = Path(name)
        path = folder / "job.json"
        path.write_text(job.model_dump_json(), "utf-8")
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "flame_core.training.job", str(path))
        except ChildFailedError as error:
            raise _reported(folder, processes) or _died(error) from None
        except SignalException as error:
            raise _reported(folder, processes) or Interrupted(
                f"{error}: the processes did not save in time; run again to resume from the last checkpoint"
            ) from None


def _require_gpus(processes: int) -> None:
    import torch

    if settings().torch_device() == "cuda" and torch.cuda.device_count() < processes:
        raise ResourceError(
            f"FLAME_TRAIN_PROCESSES={processes}, but there are {torch.cuda.device_count()} GPUs: one process a GPU"
        )


def _reported(folder: Path, processes: int) -> FlameError | None:
    """The error that the first of the processes reported."""
    for rank in range(processes):
        path = error_file(folder, rank)
        if path.is_file():
            record = json.loads(path.read_text("utf-8"))
            kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlameError)]
            return next(kind for kind in kinds if kind.exit_code == record["code"])(record["message"])
    return None


def _died(error: object) -> FlameError:
    failures: dict[int, object] = getattr(error, "failures", {})
    codes = ", ".join(f"rank {rank}: {getattr(each, 'exitcode', '?')}" for rank, each in sorted(failures.items()))
    return ResourceError(
        f"a process of the training ended ({codes}); below 0 is the signal that killed it, 9 mostly for want of "
        "memory. Run again to resume from the last checkpoint"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """What the processes inherit: only the launcher talks to Dagster, and the agent waits for their checkpoint."""
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
