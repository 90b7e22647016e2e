"""A training on two real processes: stopped, killed and resumed to the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from flame_core.errors import Interrupted
from flame_core.model_files import METRICS, WEIGHTS
from flame_core.params import TrainParams
from flame_core.processes import launcher
from flame_core.processes.launcher import Launch, launch
from flame_core.training.job import TrainingJob
from tests.training.world import FACETS, recipe, write_world

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from flame_core.errors import FlameError
from flame_core.training.job import TrainingJob
try:
    TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()).run_on(2)
except FlameError as error:
    print(error)
    sys.exit(error.exit_code)
"""
PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def job(folder: Path, name: str, params: TrainParams) -> TrainingJob:
    (folder / name).mkdir(exist_ok=True)
    return TrainingJob(
        recipe=params,
        shards=folder / "shards",
        embeddings=folder / "embeddings",
        slots=list(range(len(FACETS))),
        captions=None,
        checkpoints=folder / name / "checkpoints",
        out=folder / name,
    )


def temporary(work: TrainingJob) -> Path:
    """The folder in which a training of this job keeps its temporary files."""
    folder = work.out / "temporary"
    folder.mkdir(exist_ok=True)
    return folder


def start(work: TrainingJob, **settings: str) -> subprocess.Popen[str]:
    """`work.run_on(2)` in a separate process."""
    path = work.out / "job.json"
    path.write_text(work.model_dump_json())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FLAME_DEVICE": "cpu"}
    environment |= {f"FLAME_{name.upper()}": value for name, value in settings.items()}
    environment["TMPDIR"] = str(temporary(work))
    command = [sys.executable, "-c", SCRIPT, str(path)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def at_step(work: TrainingJob, step: int, process: subprocess.Popen[str]) -> None:
    """Wait for a checkpoint of this step or a later one."""
    end = time.monotonic() + 120
    while not any(int(path.name[5:]) >= step for path in work.checkpoints.glob("step-*")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_two_ranks_that_are_stopped_and_killed_end_with_the_same_bytes(tmp_path):
    write_world(tmp_path)
    params = recipe(epochs=60)  # 180 steps, with stochastic depth
    whole, disturbed = job(tmp_path, "whole", params), job(tmp_path, "disturbed", params)
    process = start(whole)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "Warning" not in output
    assert list(temporary(whole).iterdir()) == []

    process = start(disturbed, checkpoint_seconds="0")
    at_step(disturbed, 3, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 75, output
    assert "run again to resume" in output

    stopped = max(int(path.name[5:]) for path in disturbed.checkpoints.glob("step-*"))
    process = start(disturbed, checkpoint_seconds="0")
    at_step(disturbed, stopped + 5, process)
    ranks = [p for p in psutil.Process(process.pid).children() if "flame_core.training.job" in p.cmdline()]
    assert len(ranks) == 2
    ranks[1].kill()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 5, output
    assert "-9" in output

    process = start(disturbed, checkpoint_seconds="0")
    at_step(disturbed, stopped + 20, process)
    ranks = [p for p in psutil.Process(process.pid).children() if "flame_core.training.job" in p.cmdline()]
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive  # a killed launcher leaves no process behind
    assert list(temporary(disturbed).iterdir()) == []  # and neither do the agents that were stopped before

    process = start(disturbed)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    for name in (WEIGHTS, METRICS):
        assert (disturbed.out / name).read_bytes() == (whole.out / name).read_bytes()


@pytest.mark.slow
def test_two_ranks_train_as_one_process_does(tmp_path):
    write_world(tmp_path)
    params = recipe(model={"backbone_options": PLAIN, "image_size": 16})
    one, two = job(tmp_path, "one", params), job(tmp_path, "two", params)
    one.run()
    process = start(two)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    losses = [
        [json.loads(line)["loss"] for line in (each.out / METRICS).read_text().splitlines()] for each in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][-1] < losses[0][0]
    for name, weight in load_file(one.out / WEIGHTS).items():
        torch.testing.assert_close(load_file(two.out / WEIGHTS)[name], weight, atol=1e-4, rtol=1e-3)


def test_a_batch_that_cannot_be_divided_is_refused_with_both_numbers(tmp_path):
    write_world(tmp_path)
    process = start(job(tmp_path, "odd", recipe(batch_size=7)))
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    assert "batch_size: 7 cannot be divided evenly among 2 processes" in output
    assert list((tmp_path / "odd/temporary").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_the_processes_begin_it_says_one_thing(number, tmp_path, monkeypatch, capfd):
    """No traceback of a process that was importing, no line of torch's agent, and nothing left."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def stop() -> None:
        while not any(tmp_path.glob("flame-launch-*/importing")):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before, others = signal.getsignal(number), set(psutil.Process().children())
    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    with pytest.raises(Interrupted, match=r"^stopped; run again to go on$"):
        launch(Launch("tests.processes.never_ready", "{}", "FLAME_TRAIN_PROCESSES", "to go on"), 1)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert set(psutil.Process().children()) <= others
    assert signal.getsignal(number) is before


def test_a_launch_that_nohup_began_does_not_end_with_the_terminal():
    given = {signal.SIGHUP: signal.SIG_IGN, signal.SIGQUIT: signal.SIG_DFL}  # a shell's `&` ignores the second
    before = {number: signal.signal(number, action) for number, action in given.items()}
    try:
        with launcher._stops_as(KeyError):
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyError, match="SIGQUIT"):
                signal.raise_signal(signal.SIGQUIT)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, action in before.items():
            signal.signal(number, action)
