"""Opening a DVC project: who holds its lock is said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestration.dvc_project.errors import DvcBusyError
from orchestration.dvc_project.project import DvcProject
from orchestration.dvc_project.repo import held_paths, release_dead


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
