"""Terminating a run: the stage checkpoints, no process and no lock is left, and the next run resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flame_core.dvc_project.project import DvcProject
from flame_core.dvc_project.stage_processes import DVC
from tests.foreign_project import edit

# Counts to 40 with a helper in a session of its own; SIGTERM finishes the step, checkpoints and leaves with code 75.
pytestmark = pytest.mark.slow
TRAIN = """\
import pathlib, signal, subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
saved = pathlib.Path("checkpoint")
steps = saved.read_text().split() if saved.exists() else []
print("resumes at" if steps else "starts at", len(steps), flush=True)
while len(steps) < 40:
    time.sleep(0.02 if len(steps) < 20 or saved.exists() else 0.5)  # time to be stopped in
    steps.append(str(len(steps) ** 2))
    pathlib.Path("step").write_text(str(len(steps)))
    if stopped:
        saved.write_text(" ".join(steps))
        helper.terminate(); helper.wait()
        print("saved", len(steps), "steps", flush=True)
        sys.exit(75)
pathlib.Path("model.txt").write_text(" ".join(steps))
helper.terminate(); helper.wait()
"""

RUN = """\
import sys
from pathlib import Path
import dagster as dg
from orchestration.dagster_dvc.assets import dvc_assets
from flame_core.dvc_project.project import DvcProject
from orchestration.dagster_dvc.run import Runner

def assets():
    return dvc_assets(DvcProject(Path(sys.argv[1])), runner=Runner(grace_seconds=float(sys.argv[2])))

if __name__ == "__main__":
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(assets(), instance=instance, raise_on_error=False)
    sys.exit(0 if result.success else 1)
"""


@pytest.fixture
def training(foreign: DvcProject) -> DvcProject:
    (foreign.root / "train.py").write_text(TRAIN)
    (foreign.root / "dvc.yaml").write_text(
        f"stages:\n  train:\n    cmd: {sys.executable} train.py\n    deps: [train.py]\n    outs: [model.txt]\n"
    )
    (foreign.root / "run.py").write_text(RUN)
    return foreign


def start(project: DvcProject, grace: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "run.py", str(project.root), str(grace)],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(project: DvcProject, number: int) -> None:
    path = project.root / "step"
    deadline = time.monotonic() + 120
    while not path.exists() or int(path.read_text() or 0) < number:
        assert time.monotonic() < deadline, "the stage did not get far enough"
        time.sleep(0.02)


def processes_below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[str]:
    return [str(p) for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminated_run_checkpoints_and_the_next_resumes(training: DvcProject, number: int) -> None:
    run = start(training, grace=30)
    wait_for_step(training, 21)
    below = processes_below(run.pid)
    assert len(below) >= 3  # dvc, the training, its helper
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert alive(below) == []
    assert "asking process" in output
    said = "train has stopped. What was finished is kept: materialize it again to go on. Its last words: saved"
    assert said in output  # before Dagster's stack trace
    saved = (training.root / "checkpoint").read_text().split()
    assert 21 <= len(saved) < 40
    assert not (training.root / "dvc.lock").exists()
    assert training.changes("train")  # DVC's locks are free

    again = start(training, grace=30)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert f"resumes at {len(saved)}" in output
    assert (training.root / "model.txt").read_text().split() == [str(step**2) for step in range(40)]


@pytest.mark.parametrize("to_stage", [False, True])
def test_what_a_person_stopped_is_not_tried_again(training: DvcProject, to_stage: bool) -> None:
    """Neither where the run is told to stop, nor where its stage is."""
    edit(
        training.root / "dvc.yaml",
        "    outs:",
        "    meta: {dagster: {retries: {max: 3, delay_seconds: 0.1}}}\n    outs:",
    )
    run = start(training, grace=30)
    wait_for_step(training, 21)
    stage = next(p for p in processes_below(run.pid) if p.cmdline()[1:] == ["train.py"])
    (stage if to_stage else run).send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "starts at 0" in output and "resumes at" not in output
    assert len((training.root / "checkpoint").read_text().split()) < 40
    assert not (training.root / "model.txt").exists()


def test_after_a_killed_run_the_next_ends_what_it_left_and_resumes(training: DvcProject) -> None:
    run = start(training, grace=30)
    wait_for_step(training, 21)
    below = processes_below(run.pid)
    run.kill()
    run.communicate()
    assert len(alive(below)) >= 3  # dvc, the training, its helper: nobody was there to stop them
    again = start(training, grace=30)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert "A run was killed and left processes running" in output
    assert alive(below) == []
    saved = (training.root / "checkpoint").read_text().split()
    assert f"resumes at {len(saved)}" in output
    assert (training.root / "model.txt").read_text().split() == [str(step**2) for step in range(40)]


def test_a_stage_does_not_outlive_its_dvc(training: DvcProject) -> None:
    run = start(training, grace=30)
    wait_for_step(training, 21)
    below = processes_below(run.pid)
    dvc = next(process for process in below if process.cmdline()[:3] == DVC)
    dvc.kill()
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "dvc ended with code -9 while its stage was running" in output
    assert alive(below) == []
    saved = (training.root / "checkpoint").read_text().split()
    again = start(training, grace=30)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert f"resumes at {len(saved)}" in output


def test_a_stage_that_does_not_stop_is_killed(training: DvcProject) -> None:
    edit(training.root / "train.py", "stopped.append(1)", "None")
    run = start(training, grace=1)
    wait_for_step(training, 21)
    below = processes_below(run.pid)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert alive(below) == []
    assert "killing processes that did not stop within 1 s" in output
    assert training.changes("train")
