"""Several trainings at once on one GPU, in processes that each train one after the other; results come as they end.

A small tower leaves most of a GPU idle, and starting a process takes as long as training one. So a few processes stay,
each with a CUDA context and its own loader. A training that takes too long is stopped with its process, and one that
fails leaves the others alone.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")
_LOOK = 1.0  # seconds between two looks at the clock
_PATIENCE = 2.0  # seconds that processes have to end by themselves


@dataclass(frozen=True)
class Done(Generic[J, R]):
    """A job, with its result or the reason why there is none, and its wall-clock seconds."""

    job: J
    result: R | None
    error: str
    seconds: float


@dataclass
class _Worker(Generic[J]):
    process: BaseProcess
    jobs: Connection
    job: J | None = None
    since: float = 0.0


class Pool(Generic[J, R]):
    """Processes that do jobs.

    Args:
        work: what is done with a job, in a new process, as are its arguments and results: a function of a module.
        processes: how many.
        job_seconds: after which a job is stopped.
        seconds: after which all are stopped; None: never.
    """

    def __init__(
        self, work: Callable[[J], R], processes: int, job_seconds: float, seconds: float | None = None
    ) -> None:
        self._work, self._job_seconds = work, job_seconds
        self._until = None if seconds is None else time.monotonic() + seconds
        self._context = get_context("spawn")  # CUDA cannot be forked
        self._workers: list[_Worker[J]] = [self._start() for _ in range(processes)]

    def run(self, take: Callable[[], J | None]) -> Iterator[Done[J, R]]:
        """Do what `take` gives until nothing is running and it gives None, or until time is up.

        `take` is asked whenever a process is free: it may give None as long as a job waits for the result of another.
        """
        try:
            while not self._time_is_up():
                for worker in self._workers:
                    if worker.job is None and (job := take()) is not None:
                        worker.job, worker.since = job, time.monotonic()
                        worker.jobs.send(job)
                busy = [worker for worker in self._workers if worker.job is not None]
                if not busy:
                    return
                ready = wait([worker.jobs for worker in busy], timeout=_LOOK)
                for worker in busy:
                    if worker.jobs in ready:
                        yield self._received(worker)
                    elif time.monotonic() - worker.since > self._job_seconds:
                        yield self._replaced(worker, f"stopped after {self._job_seconds:g} s")
            for worker in self._workers:
                if worker.job is not None:
                    yield self._done(worker, None, "stopped: time is up")
        finally:
            _end([worker.process for worker in self._workers])

    def _time_is_up(self) -> bool:
        return self._until is not None and time.monotonic() > self._until

    def _received(self, worker: _Worker[J]) -> Done[J, R]:
        try:
            result, error = worker.jobs.recv()
        except EOFError:
            return self._replaced(worker, "its process died")
        return self._done(worker, result, error)

    def _replaced(self, worker: _Worker[J], error: str) -> Done[J, R]:
        done = self._done(worker, None, error)
        _end([worker.process])
        new = self._start()
        worker.process, worker.jobs = new.process, new.jobs
        return done

    @staticmethod
    def _done(worker: _Worker[J], result: R | None, error: str) -> Done[J, R]:
        assert worker.job is not None
        done = Done(worker.job, result, error, time.monotonic() - worker.since)
        worker.job = None
        return done

    def _start(self) -> _Worker[J]:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self._work, there))
        process.start()
        there.close()
        return _Worker(process, here)


def _serve(work: Callable[[J], R], jobs: Connection) -> None:
    """Do the jobs that come, and send (result, error) of each, until the other end is closed."""
    while True:
        try:
            job = jobs.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            answer = work(job), ""
        except Exception:  # whatever a training raises is told, and the next one may well work
            answer = None, traceback.format_exc()
        try:
            jobs.send(answer)
        except BrokenPipeError:
            return


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + _PATIENCE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()
        process.join()
