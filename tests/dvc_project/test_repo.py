"""Opening a DVC project: who holds its lock is said."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flame_core.dvc_project.errors import DvcBusyError
from flame_core.dvc_project.project import DvcProject
from flame_core.dvc_project.repo import held_paths, release_dead, temporary_folder


def test_who_holds_the_lock_is_said(reproduced: DvcProject) -> None:
    hold = (
        "import sys, time; from dvc.repo import Repo\n"
        "with Repo('.').lock: print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=reproduced.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DvcBusyError, match=rf"held by process {holder.pid} "):
            reproduced.locked()
    finally:
        holder.communicate("\n")
    assert reproduced.locked()


def test_what_is_held_in_a_project_below_dvc_s_folder_is_seen(reproduced: DvcProject) -> None:
    inner = reproduced.root / "inner"
    inner.mkdir()
    shutil.copy(reproduced.root / "dvc.yaml", inner)
    held = {"write": {str(inner / "numbers"): {"pid": 1, "cmd": "dvc repro"}}}
    (reproduced.root / ".dvc/tmp/rwlock").write_text(json.dumps(held))
    assert temporary_folder(inner) == reproduced.root / ".dvc/tmp"
    assert held_paths(inner) == held


def test_nothing_is_held_without_dvc(tmp_path: Path) -> None:
    assert held_paths(tmp_path) is None


def test_what_a_process_held_whose_number_another_has_is_released(reproduced: DvcProject) -> None:
    """As in a container that was killed and is started again."""
    held, path = reproduced.root / ".dvc/tmp/rwlock", str(reproduced.root / "grown")
    other = subprocess.Popen(["sleep", "60"])
    try:
        for cmd, ended in (("/a b/dvc_command.py repro", True), ("/a b/sleep 60", False), ("/a b/sleep.py", False)):
            held.write_text(json.dumps({"write": {path: {"pid": other.pid, "cmd": cmd}}}))
            assert release_dead(reproduced.root) == ([f"process {other.pid} ({cmd})"] if ended else [])
            assert (path in held_paths(reproduced.root)["write"]) is not ended
    finally:
        other.kill()
        other.communicate()


def _hold_as_a_step(root: str) -> None:
    """Under `multiprocessing`, which gives its child the arguments of its parent."""
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    with Repo(root) as repo, rwlock(repo.tmp_dir, repo.fs, " ".join(sys.argv), [f"{root}/numbers"], [], False):
        assert release_dead(Path(root)) == []


def test_what_a_step_of_dagster_holds_is_kept(reproduced: DvcProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/dagster", "api", "execute_run", '{"run": "1"}'])
    step = multiprocessing.get_context("spawn").Process(target=_hold_as_a_step, args=(str(reproduced.root),))
    step.start()
    step.join()
    assert step.exitcode == 0


def test_what_a_module_without_arguments_holds_is_kept(reproduced: DvcProject, tmp_path: Path) -> None:
    (tmp_path / "waits").mkdir()
    (tmp_path / "waits/__main__.py").write_text("input()")
    held, path = reproduced.root / ".dvc/tmp/rwlock", str(reproduced.root / "grown")
    holder = subprocess.Popen([sys.executable, "-m", "waits"], cwd=tmp_path, stdin=subprocess.PIPE)
    try:
        info = {"pid": holder.pid, "cmd": f"{tmp_path}/waits/__main__.py"}
        held.write_text(json.dumps({"write": {path: info}}))
        assert release_dead(reproduced.root) == []
    finally:
        holder.communicate(b"\n")
