"""The Ray engine: units of work as Ray tasks, on this machine or on a cluster (`FLAME_ENGINE=ray`, extra `scale`).

All nodes need the same Python, the same packages, and the project under the same path on a shared disk: a task
publishes its unit in the work cache there, and only small values travel. Ray starts a task again, up to twice, if its
worker or its node dies. Tasks are plain ones: a pool of actors would wait for an actor on a node that is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from flame_core.errors import ParamsError, ResourceError
from flame_core.settings import settings

Work = TypeVar("Work")
Result = TypeVar("Result")
_AHEAD = 4  # queued tasks per core of the cluster
_RETRIES = 2  # of a task whose worker or node died
_STORE_BYTES = 128 * 2**20  # of a local cluster's object store: results are small
_ADDRESS = "FLAME_RAY_ADDRESS"
_ATTEMPTS = "RAY_gcs_server_port_wait_time_s"  # counts attempts to connect
_CONNECT_SECONDS = 10.0


def in_ray(fn: Callable[[Work], Result], tasks: Sequence[Work], unit: str, *, gpu: bool = False) -> Iterator[Result]:
    """`fn(task)` of each task, in order; the first error that a task raises is raised here, after those begun finished.

    Args:
        fn: picklable, as the tasks are.
        tasks: in the order of their results.
        unit: what a task is called in errors.
        gpu: whether each task has a GPU of its own, if `FLAME_DEVICE` has them use one; its worker is kept.

    Raises:
        ParamsError: Ray is not installed, or there is no cluster at the address.
        ResourceError: Ray did not start, or the workers of a task died three times.
    """
    ray = _started()
    gpus = int(gpu and _has_gpus(ray))
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES, max_calls=0)(_work)
    here = (Path.cwd(), _variables(), logging.getLogger("flame_core").getEffectiveLevel())
    waiting: deque[Any] = deque()
    names = (f"{unit} {number} of {len(tasks)}" for number in range(1, len(tasks) + 1))
    try:
        for task in tasks:
            waiting.append(remote.remote(fn, task, *here))
            if len(waiting) > _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1))):
                yield _result(ray, waiting.popleft(), next(names))
        while waiting:
            yield _result(ray, waiting.popleft(), next(names))
    finally:
        _end(ray, waiting)


def _work(
    fn: Callable[[Work], Result], task: Work, folder: Path, variables: dict[str, str], level: int
) -> Result:  # pragma: no cover - in Ray's processes
    """In a worker: compute one task with the driver's settings, in the driver's folder.

    Ray cancels a task by an interrupt; a unit that is begun is finished instead.
    """
    from flame_core import reporting

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(variables)
    os.chdir(folder)
    reporting.configure_logging(logging.getLevelName(level))
    return fn(task)


def _started() -> Any:
    """The module `ray`, connected to the cluster of `FLAME_RAY_ADDRESS`, or to one that this process starts here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = import_module("ray")  # by name: type checkers need not find it
    except ModuleNotFoundError:
        raise ParamsError(
            "FLAME_ENGINE=ray needs the package ray: `pip install 'flame-mlops[scale]'`, or FLAME_ENGINE=local"
        ) from None
    if ray.is_initialized():
        return ray
    own = settings()
    _require_listener(own.ray_address)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "configure_logging": False}
    if own.ray_address is None:
        options |= {"address": "local", "num_cpus": own.workers, "object_store_memory": _STORE_BYTES}
        options |= {"include_dashboard": False}
    else:
        options |= {"address": own.ray_address}
        os.environ.setdefault(_ATTEMPTS, "1")  # of 40 s each; Ray's own 20 look like a hang
    try:
        ray.init(**options)
    except Exception as error:  # a node that takes longer than 30 s to start is a bare one
        ray.shutdown()
        reason = str(error).strip().partition("\n")[0]
        if own.ray_address is None:
            raise ResourceError(
                f"Ray did not start on this machine ({reason}). If it is busy, run the same command again when it is "
                "not; FLAME_ENGINE=local does without Ray"
            ) from None
        raise _not_connected(str(own.ray_address), reason) from None
    return ray


def _require_listener(address: str | None) -> None:
    """Refuse an address `host:port` where nothing listens, at once."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdecimal() or "/" in host:  # `auto`, or `ray://...`
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _not_connected(str(address), str(error)) from None


def _not_connected(address: str, reason: str) -> ParamsError:
    return ParamsError(
        f"{_ADDRESS}={address}: no connection to Ray ({reason}). Is the cluster up (`ray status`), and its token at "
        "hand (RAY_AUTH_TOKEN)? Without an address, Ray starts on this machine"
    )


def _has_gpus(ray: Any) -> bool:
    """Whether tasks that load a model ask for a GPU."""
    device = settings().device
    there = ray.cluster_resources().get("GPU", 0) > 0
    if device == "cuda" and not there:
        raise ParamsError("FLAME_DEVICE=cuda, but no node of the Ray cluster has a GPU; use FLAME_DEVICE=cpu or auto")
    return there and device != "cpu"


def _variables() -> dict[str, str]:
    """The driver's settings, which a worker takes over; it maps nothing over Ray itself."""
    own = {name: value for name, value in os.environ.items() if name.startswith("FLAME_") and name != _ADDRESS}
    return {**own, "FLAME_ENGINE": "local"}


def _result(ray: Any, reference: Any, name: str) -> Any:
    exceptions = ray.exceptions
    dead = (
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.ObjectLostError,
    )
    try:
        return ray.get(reference)
    except exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except dead as error:
        raise ResourceError(
            f"{name}: its worker died {_RETRIES + 1} times ({type(error).__name__}), usually because memory ran out. "
            "Run the same command again with a smaller FLAME_WORKERS or larger nodes: finished work is kept"
        ) from None


def _end(ray: Any, waiting: Sequence[Any]) -> None:
    """Drop the tasks that have not begun, and wait for those that have."""
    if not waiting:
        return
    for reference in waiting:
        with suppress(Exception):  # it is over, or its cluster is gone: there is nothing to cancel
            ray.cancel(reference, force=False)
    with suppress(Exception):
        ray.wait(list(waiting), num_returns=len(waiting), timeout=settings().stop_grace_seconds, fetch_local=False)
