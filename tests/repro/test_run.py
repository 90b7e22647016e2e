"""`flame run` in a shell: a stage's exit code, stop signals, killed groups, and two runs at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flame_core.dvc_project.repo import release_dead
from flame_core.gates import Check, to_bytes
from flame_core.layout import Layout
from flame_core.process_trees.tree import TOKEN
from tests.foreign_project import dvc, edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages

# Saves its state and ends with code 75 when it is asked to, as a training does.
STAGE = """\
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("started").write_text(str(pathlib.Path("started").exists()))
while pathlib.Path("wait").exists() and not pathlib.Path("saved").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def waiting(layout: Layout) -> Layout:
    """The project, whose first stage waits until a file is gone or it was stopped once."""
    (layout.root / "stage.py").write_text(STAGE)
    edit(layout.root / "dvc.yaml", "mkdir -p data/models &&", f"{sys.executable} stage.py && mkdir -p data/models &&")
    (layout.root / "wait").touch()
    return layout


def start(layout: Layout, *arguments: str) -> subprocess.Popen[str]:
    """`flame run` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from flame_core.cli import main; main()", "run", *arguments],
        cwd=layout.root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def flame_run(layout: Layout, *arguments: str) -> tuple[int, str]:
    run = start(layout, *arguments)
    output, _ = run.communicate(timeout=120)
    return run.returncode, output


def line_of(process: subprocess.Popen[str], text: str) -> str:
    """The next line of its output with this text."""
    assert process.stdout is not None
    line = process.stdout.readline()
    while text not in line:
        assert line and process.poll() is None
        line = process.stdout.readline()
    return line


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def fail_a_check(layout: Layout) -> None:
    """The last stage writes a check that has not passed and does not block."""
    failed = Check("recipes_differ", False, "some metric differs", [], blocking=False)
    (layout.root / "checks.json").write_bytes(to_bytes([failed]))
    edit(
        layout.root / "dvc.yaml",
        "cat data/models/* > data/comparison && echo done",
        "mkdir -p data/comparison && cp checks.json data/comparison && echo done\n"
        "    meta: {dagster: {checks: [recipes_differ]}}",
    )


def test_checks_that_have_not_passed_are_the_last_lines_of_a_run(layout: Layout) -> None:
    fail_a_check(layout)
    for _ in range(2):  # also of a run that finds everything up to date
        code, said = flame_run(layout)
        lines = said.splitlines()
        start = lines.index("checks that have not passed:")
        assert code == 0, said
        assert lines[start + 1].startswith("  data/comparison (does not block): recipes_differ: some metric differs (")
        assert lines[start + 3].strip() == "likely causes, the likeliest first:"
        assert lines[-1].strip() == "then go on with `flame run`"


def at_work(layout: Layout) -> list[str]:
    """Processes of stages of that project."""
    found = []
    for process in psutil.process_iter():
        try:
            if TOKEN in process.environ() and Path(process.cwd()).is_relative_to(layout.root):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


slow = pytest.mark.slow


@pytest.mark.parametrize("code", [3, pytest.param(1, marks=slow), pytest.param(75, marks=slow)])
def test_the_exit_code_is_that_of_the_stage(layout: Layout, code: int) -> None:
    edit(layout.root / "dvc.yaml", "echo done", f"echo no room for key-9 && exit {code}")
    ended, said = flame_run(layout)
    assert ended == code, said
    assert "no room for key-9" in said
    assert flame_run(layout, "train@flame")[0] == 0


@slow
def test_a_stage_that_a_signal_ended_counts_as_in_a_shell(layout: Layout) -> None:
    edit(layout.root / "dvc.yaml", "echo done", "kill -KILL $$")
    assert flame_run(layout)[0] == 128 + signal.SIGKILL


@slow
def test_a_workspace_too(layout: Layout) -> None:
    edit(layout.root / "dvc.yaml", "echo done", "exit 4")
    assert flame_run(layout, "--set", "train.epochs=5")[0] == 4


@slow
def test_a_target_that_does_not_exist_is_refused_by_dvc(layout: Layout) -> None:
    ended, said = flame_run(layout, "nothing")
    assert ended not in (0, 1) and "nothing" in said


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=slow), pytest.param(signal.SIGHUP, marks=slow)]
)
def test_a_stop_signal_is_said_in_a_line_and_the_next_run_resumes(waiting: Layout, number: signal.Signals) -> None:
    run = start(waiting)
    wait_for(waiting.root / "started")
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 75, said
    last = said.strip().splitlines()[-1]
    assert last == f"error: stopped by {number.name}; what was finished is kept, and the same command resumes"
    assert "Traceback" not in said
    assert (waiting.root / "saved").exists()
    assert at_work(waiting) == []
    assert flame_run(waiting)[0] == 0


def test_a_killed_group_leaves_no_process_and_the_next_run_resumes(waiting: Layout) -> None:
    run = start(waiting)
    wait_for(waiting.root / "started")
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=60)  # until the last process has closed its output
    assert (waiting.root / "saved").exists()
    ended, said = flame_run(waiting)
    assert ended == 0, said
    assert at_work(waiting) == []


@slow
def test_every_process_killed_at_once(waiting: Layout) -> None:
    """Also what runs in sessions of its own, so that nobody releases anything."""
    run = start(waiting)
    wait_for(waiting.root / "started")
    for process in (psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)):
        process.kill()
    run.communicate(timeout=60)
    (waiting.root / "wait").unlink()
    ended, said = flame_run(waiting)
    assert ended == 0, said


def test_the_second_of_two_runs_waits_and_says_for_whom(waiting: Layout) -> None:
    first = start(waiting)
    wait_for(waiting.root / "started")
    second = start(waiting)
    line = line_of(second, "waiting for another DVC process")
    (waiting.root / "wait").unlink()
    said, _ = second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "is busy: (PID " in line
    assert (waiting.root / "started").read_text() == "False"  # the stage ran once


def test_a_run_that_waits_tells_of_earlier_stages_once(layout: Layout) -> None:
    (layout.root / "stage.py").write_text(STAGE)
    graph = layout.root / "dvc.yaml"
    # No other stage reads `about`, so it can be looked at while another is run.
    edit(graph, "cat data/models/*", f"{sys.executable} stage.py && cat data/models/*")
    edit(graph, "stages:\n", "stages:\n  about:\n    cmd: echo pairs > about\n    outs: [about]\n")
    (layout.root / "wait").touch()
    first = start(layout)
    wait_for(layout.root / "started")
    second = start(layout)
    line_of(second, "waiting for another DVC process")
    time.sleep(4)  # several attempts of a second each
    (layout.root / "wait").unlink()
    said, _ = second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "waiting for another DVC process" not in said
    assert said.count("Stage 'about' didn't change") == 1  # when it goes on


@slow
def test_what_a_zombie_holds_is_released(layout: Layout) -> None:
    """As in a container whose first process collects no children: there a killed process stays listed."""
    hold = (
        "import os, time; from dvc.repo import Repo; from dvc.rwlock import rwlock\n"
        "with Repo('.') as repo, rwlock(repo.tmp_dir, repo.fs, 'dvc repro', [], [os.path.abspath('data/models/flame')],"
        " False): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=layout.root, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert release_dead(layout.root) == []  # it lives
    os.kill(holder.pid, signal.SIGKILL)
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    try:
        ended, said = flame_run(layout)
        assert ended == 0, said
        assert f"released the lock of process {holder.pid} (dvc repro)" in said
    finally:
        holder.communicate()


def test_dvc_that_is_killed_is_said_and_its_stage_ends(waiting: Layout) -> None:
    edit(waiting.root / "dvc.yaml", f"{sys.executable} stage.py", f"kill -9 $PPID; {sys.executable} stage.py")
    code, output = flame_run(waiting)
    assert code == 128 + signal.SIGKILL, output
    assert "DVC was ended by SIGKILL; what was finished is kept, and the same command resumes" in output
    left = [each for each in psutil.process_iter(["cmdline"]) if "stage.py" in (each.info["cmdline"] or ())]
    assert [each for each in left if each.cwd() == str(waiting.root)] == []


def test_what_a_remote_has_is_not_computed(layout: Layout, tmp_path: Path) -> None:
    assert flame_run(layout)[0] == 0
    dvc(layout.root, "remote", "add", "--default", "store", str(tmp_path / "remote"))
    dvc(layout.root, "push", "--quiet")
    shutil.rmtree(layout.root / "data")
    shutil.rmtree(layout.root / ".dvc/cache")
    lock = (layout.root / "dvc.lock").read_text()
    (layout.root / "dvc.lock").write_text(lock.replace("stages:", "<<<<<<< ours\nstages:"))
    code, said = flame_run(layout, "--set", "evaluate.max_pictures=7")
    assert code == 2 and "dvc.lock, line 2: a merge left a conflict here: take one side as a whole" in said, said
    (layout.root / "dvc.lock").write_text(lock)
    code, said = flame_run(layout)
    assert code == 3 and "run `dvc pull data/comparison data/models/flame` first" in said, said
    code, said = flame_run(layout, "--set", "evaluate.max_pictures=7")
    assert code == 3 and f"in {layout.root} first" in said, said
    dvc(layout.root, "pull", "--quiet")
    code, said = flame_run(layout, "--set", "evaluate.max_pictures=7")
    assert code == 0 and "Running stage" not in said, said
