from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flame_core.errors import InputError, ResourceError
from flame_core.processes.engines import map_units


def _square(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return number * number


def _fail(number: int) -> int:
    if number == 3:
        raise InputError(f"number {number} is bad")
    return number


def _die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _pid(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def _note(path: Path) -> None:
    time.sleep(0.2)
    if path.name == "0":
        raise InputError("bad")
    path.touch()


def _hang(_: int) -> None:
    time.sleep(600)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(map_units(_square, range(30), workers, "test", "unit")) == [n * n for n in range(30)]
    assert list(map_units(_square, [], workers, "test", "unit")) == []


def test_one_worker_is_this_process_and_two_are_others():
    assert set(map_units(_pid, range(3), 1, "test", "unit")) == {os.getpid()}
    pids = set(map_units(_pid, range(8), 2, "test", "unit"))
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_comes_back_as_it_is(workers):
    with pytest.raises(InputError, match="number 3 is bad"):
        list(map_units(_fail, range(8), workers, "test", "unit"))


def test_nothing_begins_after_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="bad"):
        list(map_units(_note, [tmp_path / str(number) for number in range(12)], 2, "test", "unit"))
    assert len(list(tmp_path.iterdir())) <= 4  # what had begun


def test_a_killed_worker_is_told_as_what_it_is():
    with pytest.raises(ResourceError, match=r"memory.*FLAME_WORKERS"):
        list(map_units(_die, range(8), 2, "test", "unit"))


def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path):
    code = "from flame_core.processes.engines import map_units; from tests.processes.test_engines import _hang\n"
    script = tmp_path / "parent.py"
    script.write_text(code + "if __name__ == '__main__': list(map_units(_hang, [1, 2], 2, 'test', 'unit'))\n")
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": str(root)})
    process = psutil.Process(parent.pid)
    deadline = time.monotonic() + 60
    while len(family := process.children(recursive=True)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)  # fork server, resource tracker, two workers
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    for left in alive:
        left.kill()
    assert len(family) >= 4 and not alive
