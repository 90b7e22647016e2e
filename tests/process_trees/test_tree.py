"""Stopping process trees: heads first, workers in sessions of their own too, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_core.process_trees.tree import ProcessTree
from tests.ports import free_port

# An agent as torchrun's: its workers live in sessions of their own, and it passes SIGTERM on to them.
AGENT = """\
import pathlib, signal, subprocess, sys, time
worker = (
    "import pathlib, signal, sys, time\\n"
    "stop = []\\n"
    "signal.signal(signal.SIGTERM, lambda *_: stop.append(1))\\n"
    "pathlib.Path(sys.argv[1]).write_text('ready')\\n"
    "while not stop: time.sleep(0.02)\\n"
    "time.sleep(0.3)\\n"
    "pathlib.Path(sys.argv[1]).write_text('checkpoint')\\n"
)
workers = [subprocess.Popen([sys.executable, "-c", worker, f"w{i}"], start_new_session=True) for i in range(2)]
def stop(*_):
    for w in workers: w.terminate()
    for w in workers: w.wait()
    pathlib.Path("agent").write_text("ended in order")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
while True: time.sleep(0.05)
"""
# Two ranks that add up over gloo; a stop signal to any ends all after the same step, with a checkpoint and code 75.
TRAIN = """\
import pathlib, signal, sys, time
import torch, torch.distributed as dist
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
dist.init_process_group("gloo")
rank, step, asked = dist.get_rank(), 0, torch.zeros(1)
while not asked.item():
    step += 1
    asked[0] = len(stop)
    dist.all_reduce(asked)
    pathlib.Path(f"step{rank}").write_text(str(step))
    time.sleep(0.05)
time.sleep(0.5)
pathlib.Path(f"checkpoint{rank}").write_text(str(step))
dist.destroy_process_group()
sys.exit(75)
"""
OUTER = """\
import pathlib, subprocess, sys
code = subprocess.run(["/bin/bash", "-c", sys.argv[1]]).returncode
pathlib.Path("outer").write_text(str(code))
"""


@pytest.fixture
def tree() -> Iterator[ProcessTree]:
    tree = ProcessTree("test")
    yield tree
    for process in tree.members():
        process.kill()


def start(tree: ProcessTree, folder: Path, command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", OUTER, command], cwd=folder, env={**os.environ, **tree.environment()}
    )


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.02)


def test_agent_and_workers_checkpoint_and_the_command_sees_the_end(tree: ProcessTree, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    outer = start(tree, tmp_path, f"{sys.executable} agent.py; exit $?")
    wait_for(tmp_path / "w0", tmp_path / "w1")
    assert len(tree.members()) == 5  # command, shell, agent, two workers
    said: list[str] = []
    tree.stop(outer.pid, 30, said.append)
    outer.wait()
    assert tree.members() == []
    assert [(tmp_path / name).read_text() for name in ("w0", "w1")] == ["checkpoint", "checkpoint"]
    assert (tmp_path / "agent").read_text() == "ended in order"
    assert (tmp_path / "outer").read_text() == "75"  # so DVC can release its locks and report
    assert len(said) == 1 and "agent.py" in said[0]  # the head alone was asked


def test_what_ignores_the_request_is_killed_after_the_grace_period(tree: ProcessTree, tmp_path: Path) -> None:
    stubborn = (
        "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path('up').touch(); time.sleep(600)"
    )
    outer = start(tree, tmp_path, f'{sys.executable} -c "{stubborn}"; exit $?')
    wait_for(tmp_path / "up")
    said: list[str] = []
    begin = time.monotonic()
    tree.stop(outer.pid, 1.0, said.append)
    outer.wait()
    assert 1.0 <= time.monotonic() - begin < 15
    assert tree.members() == []
    assert any("killing" in line for line in said)


def test_orphans_and_the_next_command_of_a_shell_are_found(tree: ProcessTree, tmp_path: Path) -> None:
    outer = start(tree, tmp_path, "(setsid sleep 600 & ) ; touch up; sleep 500; touch next; sleep 400")
    wait_for(tmp_path / "up")
    time.sleep(0.2)
    assert ["sleep", "600"] in [process.cmdline() for process in tree.members()]
    tree.stop(outer.pid, 20, lambda line: None)
    outer.wait()
    assert tree.members() == []


def test_a_command_without_a_stage_is_interrupted(tree: ProcessTree, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "try:\n pathlib.Path('up').touch(); time.sleep(600)\n"
        "except KeyboardInterrupt:\n pathlib.Path('clean').touch()"
    )
    command = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **tree.environment()})
    wait_for(tmp_path / "up")
    tree.stop(command.pid, 20, lambda line: None)
    command.wait()
    assert (tmp_path / "clean").exists()


def test_a_tree_whose_owner_was_killed_is_found_and_stopped(tree: ProcessTree) -> None:
    owner = (
        "import os, subprocess, sys, time\n"
        "from flame_core.process_trees.tree import ProcessTree\n"
        "tree = ProcessTree('killed')\n"
        "subprocess.Popen(['sleep', '600'], env={**os.environ, **tree.environment()}, start_new_session=True)\n"
        "print(flush=True); time.sleep(600)"
    )
    variables = {**os.environ, **tree.environment(), "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen([sys.executable, "-c", owner], env=variables, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    assert ProcessTree.abandoned("killed") == []  # its owner lives
    process.stdout.close()  # what it started holds the other end
    process.kill()
    process.wait()
    assert ProcessTree.abandoned("test") == []
    (left,) = ProcessTree.abandoned("killed")
    assert [member.cmdline() for member in left.members()] == [["sleep", "600"]]
    left.stop(None, 20, lambda line: None)
    assert left.members() == ProcessTree.abandoned("killed") == []


def test_torchrun_workers_checkpoint_and_none_is_left(tree: ProcessTree, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    torchrun = f"{sys.executable} -m torch.distributed.run --nproc-per-node 2 --master-port {free_port()} train.py"
    outer = start(tree, tmp_path, f"{torchrun}; exit $?")
    wait_for(tmp_path / "step0", tmp_path / "step1")
    assert len(tree.members()) >= 5  # command, shell, agent, two workers
    (agent,) = [p for p in tree.members() if p.cmdline()[1:3] == ["-m", "torch.distributed.run"]]
    said: list[str] = []
    tree.stop(outer.pid, 60, said.append)
    outer.wait()
    assert tree.members() == []
    assert [int((tmp_path / f"checkpoint{rank}").read_text()) for rank in range(2)] == [
        int((tmp_path / f"step{rank}").read_text()) for rank in range(2)
    ]
    assert (tmp_path / "checkpoint0").read_text() == (tmp_path / "checkpoint1").read_text()  # both after the same step
    assert len(said) == 1 and f"asking process {agent.pid} " in said[0]  # it takes its workers along


def test_other_processes_are_left_alone(tree: ProcessTree, tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        outer = start(tree, tmp_path, "touch up; sleep 600; exit 3")
        wait_for(tmp_path / "up")
        tree.stop(outer.pid, 20, lambda line: None)
        outer.wait()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
