"""Engines: one function mapped over units of work, in this process, in several, or on a Ray cluster.

    results = map_units(scan, tasks, settings().workers, title="scan pictures", unit="chunk")

Results come in the order of the tasks, so they do not depend on the engine. A unit publishes its own result
(`work.py`); only small values travel between processes.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from typing import TypeVar

from flame_core import reporting
from flame_core.errors import ResourceError
from flame_core.settings import settings

Work = TypeVar("Work")
Result = TypeVar("Result")
_AHEAD = 4  # queued tasks per worker
_ending: Event | None = None  # of the run that this process works for


def map_units(
    fn: Callable[[Work], Result], tasks: Sequence[Work], workers: int, title: str, unit: str, *, gpu: bool = False
) -> Iterator[Result]:
    """`fn(task)` of each task, in order, with progress; in `workers` processes, or in this process if that is 1.

    With `FLAME_ENGINE=ray` they are tasks of a Ray cluster, whatever `workers` is; `gpu` gives each a GPU of its own.

    `fn` and the tasks must be picklable. The first error that a task raises is raised here, after the tasks that have
    begun are finished, so finished units stay in the work cache. A task of several units asks `is_ending` before each.

    Raises:
        ResourceError: a process was killed from outside, usually because memory ran out.
    """
    with reporting.progress(title, len(tasks), unit) as bar:
        for result in _results(fn, tasks, workers, unit, gpu):
            bar.advance()
            yield result


def _results(
    fn: Callable[[Work], Result], tasks: Sequence[Work], workers: int, unit: str, gpu: bool
) -> Iterator[Result]:
    if tasks and settings().engine == "ray":
        from flame_core.processes.ray_engine import in_ray

        return in_ray(fn, tasks, unit, gpu=gpu)
    return map(fn, tasks) if min(workers, len(tasks)) <= 1 else _in_processes(fn, tasks, workers)


def _in_processes(fn: Callable[[Work], Result], tasks: Sequence[Work], workers: int) -> Iterator[Result]:
    workers = min(workers, len(tasks))
    level = logging.getLogger("flame_core").getEffectiveLevel()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([fn.__module__])  # imports once for all workers; no thread is copied
    ending = context.Event()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (level, ending))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_run, fn, task))
            if len(waiting) > workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ResourceError(
            "a worker process was killed, usually because memory ran out; run the same command again with a smaller "
            "FLAME_WORKERS: finished work is kept"
        ) from None
    finally:
        ending.set()
        pool.shutdown(cancel_futures=True)


def is_ending() -> bool:
    """Whether the run has met an error or Ctrl-C: what this process has begun is finished, and nothing else begins."""
    return _ending is not None and _ending.is_set()


def _run(fn: Callable[[Work], Result], task: Work) -> Result:
    if is_ending():  # a queued task, which the pool cannot cancel
        raise CancelledError
    return fn(task)


def _start_worker(level: int, ending: Event) -> None:
    """Log like the parent, leave Ctrl-C to it, and end when it ends (a killed parent leaves no process behind)."""
    global _ending
    _ending = ending
    reporting.configure_logging(logging.getLevelName(level))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
