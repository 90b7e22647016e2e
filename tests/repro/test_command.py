"""How `flame_core.repro.command` waits for other DVC processes; `test_run.py` tests it with two runs."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flame_core.dvc_project.project import DvcProject
from flame_core.process_trees.tree import TOKEN
from flame_core.repro import command
from flame_core.workspace import environment
from tests.foreign_project import edit


def test_a_path_that_was_freed_before_the_first_look_is_not_waited_for_until_another_is_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is held by the time of the look may be another path only, for hours."""
    other = {"write": {"/project/data/models/other": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}
    busy = "'/project/data/shards' is busy, it is being blocked by:\n  (PID 1): dvc repro\n"
    attempts, slept = [], []

    def main(arguments: list[str]) -> int:
        from dvc.lock import LockError

        attempts.append(arguments)
        if len(attempts) > 1:
            return 0
        try:
            raise LockError(busy)
        except LockError:
            command.logging.getLogger("dvc.cli").exception("failed")
        return 255

    def held(*_: Any) -> Any:
        return other

    monkeypatch.setattr("dvc.cli.main", main)
    monkeypatch.setattr(command, "held_paths", held)
    monkeypatch.setattr(command, "release_dead", lambda root: [])
    monkeypatch.setattr(command.time, "sleep", slept.append)
    assert command.dvc(["repro"]) == 0
    assert len(attempts) == 2
    assert 10 < sum(slept) <= 60


def test_a_caller_that_waits_by_itself_is_told_for_whom(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy = "'/project/data/shards' is busy, it is being blocked by:\n  (PID 1): dvc repro\n"
    given = []

    def main(arguments: list[str]) -> int:
        from dvc.lock import LockError

        given.append(arguments)
        try:
            raise LockError(busy)
        except LockError:
            command.logging.getLogger("dvc.cli").exception("failed to reproduce")
        return 255

    monkeypatch.setattr("dvc.cli.main", main)
    monkeypatch.setattr(sys, "argv", ["command", "--no-wait", "repro", "train"])
    monkeypatch.setattr(logging.getLogger("dvc"), "propagate", True)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert (ended.value.code, given) == (255, [["repro", "train"]])
    assert "(PID 1): dvc repro" in caplog.text


def test_a_disk_that_is_full_below_the_cache_is_named_and_keeps_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC alone says that it failed to transfer a file, leaves a part of it in its cache, and ends with 0."""
    from dvc.repo import Repo

    def cut(source: str, place: str, **_: Any) -> None:
        Path(place).write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of large files, without a name

    stage = {"cmd": "mkdir out && echo bytes > out/file", "outs": ["out"]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"make": stage}}))
    Repo.init(str(tmp_path), no_scm=True).close()
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as full:
        full.setattr("dvc_objects.fs.utils.copyfile", cut)
        assert command.dvc(["repro"]) == 5
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"error: {tmp_path}/\.dvc/cache/\S+: No space left on device\. Free some room", said), said
    assert "Traceback" not in said and "unexpected" not in said
    assert not list((tmp_path / ".dvc" / "cache").rglob("*.tmp"))
    assert not (tmp_path / "dvc.lock").exists()
    assert command.dvc(["repro"]) == 0
    with Repo(str(tmp_path)) as repo:
        assert not repo.status()


def test_a_project_on_a_disk_that_may_only_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: list[str]) -> int:
        try:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/project/.dvc/tmp/lock")
        except OSError:
            logging.getLogger("dvc.cli").exception("unexpected error")
        return 255

    monkeypatch.setattr("dvc.cli.main", main)
    assert command.dvc(["repro"]) == 5
    said = " ".join(capsys.readouterr().err.split())
    assert "error: /project/.dvc/tmp/lock: Read-only file system. This user may not read or write there" in said
    assert "unexpected error" not in said


def test_a_run_that_was_killed_before_this_process_looked_has_no_stage_left(foreign: DvcProject) -> None:
    """Another process is its parent by then, as the first of a container is."""
    edit(foreign.root / "grow.py", "count =", "time.sleep(600)\ncount =")
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    command = subprocess.Popen(
        [sys.executable, "-m", "flame_core.repro.command", "repro", "grow"],
        cwd=foreign.root,
        env={**environment(), TOKEN: f"dvc-test:{killed.pid}:0123"},
        start_new_session=True,
    )
    try:
        assert command.wait(timeout=45) != 0
    finally:
        if command.poll() is None:
            os.killpg(command.pid, 9)
            command.wait()
    assert not (foreign.root / "dvc.lock").exists()
