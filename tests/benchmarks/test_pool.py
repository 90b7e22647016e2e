"""Jobs in processes: results as they come, errors, deaths and limits of time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.pool import Pool


def act(job: str) -> str:
    name, _, argument = job.partition(" ")
    if name == "sleep":
        time.sleep(float(argument))
    elif name == "fail":
        raise ValueError(argument)
    elif name == "die":
        os._exit(3)
    return job.upper()


def results(jobs: list[str], processes: int = 1, job_seconds: float = 60, seconds: float | None = None) -> Iterator:
    return Pool(act, processes, job_seconds, seconds).run(partial(next, iter(jobs), None))


def test_results_come_as_jobs_end_and_failures_leave_the_others_alone():
    done = {each.job: each for each in results(["echo a", "fail no such", "die", "echo b"])}
    assert [done[job].result for job in ("echo a", "echo b")] == ["ECHO A", "ECHO B"]
    assert done["fail no such"].result is None and "ValueError: no such" in done["fail no such"].error
    assert done["die"].error == "its process died"


def test_a_job_that_takes_too_long_is_stopped_and_its_place_is_taken_by_another():
    done = list(results(["sleep 600", "echo after"], job_seconds=8))
    assert [each.error or each.result for each in done] == ["stopped after 8 s", "ECHO AFTER"]


def test_when_time_is_up_everything_ends():
    begun = time.monotonic()
    done = list(results(["echo first", "sleep 600", "echo never"], seconds=10))
    assert [each.job for each in done] == ["echo first", "sleep 600"]
    assert done[-1].error == "stopped: time is up" and time.monotonic() - begun < 60


def test_a_job_that_waits_for_another_is_asked_for_again():
    known: list[str] = []
    todo = ["sleep 0.1", "echo second"]

    def take() -> str | None:
        if not todo or (todo[0] == "echo second" and "sleep 0.1" not in known):
            return None
        return todo.pop(0)

    known.extend(each.job for each in Pool(act, 2, 60).run(take))
    assert known == ["sleep 0.1", "echo second"]
