"""DVC is killed while it writes its own files: they are as before, and the next command runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flame_core.dvc_project.project import DvcProject
from flame_core.dvc_project.whole_files import replace_whole
from flame_core.workspace import environment
from tests.foreign_project import dvc

KILLED_IN_LOCK = """
import os, sys
from dvc.utils.serialize import _yaml
from flame_core.dvc_project.whole_files import main

def cut(data, stream):
    stream.write("schema: ")
    stream.flush()
    os.kill(os.getpid(), 9)

_yaml._dump = cut
main()
"""
KILLED_IN_LIST = """
import json, os
from flame_core.dvc_project.whole_files import main

def cut(write):
    def killed(content, *rest, **more):
        if "write" in content:
            os.kill(os.getpid(), 9)
        return write(content, *rest, **more)
    return killed

json.dump, json.dumps = cut(json.dump), cut(json.dumps)
main()
"""


@pytest.mark.parametrize(
    ("code", "name"), [(KILLED_IN_LOCK, "dvc.lock"), (KILLED_IN_LIST, ".dvc/tmp/rwlock")], ids=["lock", "list"]
)
def test_killed_while_it_writes_a_file_it_leaves_the_old_one(code: str, name: str, reproduced: DvcProject) -> None:
    file = reproduced.root / name
    before = file.read_bytes()
    killed = subprocess.run(
        [sys.executable, "-c", code, "repro", "--force", "--single-item", "grow"],
        cwd=reproduced.root,
        env=environment(),
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert file.read_bytes() == before
    assert reproduced.locked().keys() == {"grow", "scale@2", "scale@10", "total"}


def test_a_list_that_another_dvc_left_cut_stops_nothing(reproduced: DvcProject) -> None:
    held = reproduced.root / ".dvc/tmp/rwlock"
    held.write_text("")
    with pytest.raises(AssertionError, match="corrupted"):
        dvc(reproduced.root, "status", "grow")
    assert reproduced.changes("grow") == {}
    assert isinstance(json.loads(held.read_text()), dict)


def test_a_stage_whose_runs_are_gone_from_the_run_cache_runs(reproduced: DvcProject) -> None:
    root = reproduced.root
    for run in (root / ".dvc/cache/runs").glob("*/*/*"):
        run.unlink()
    (root / "dvc.lock").unlink()
    repro = [sys.executable, "-m", "flame_core.dvc_project.whole_files", "repro", "grow"]
    done = subprocess.run(repro, cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage 'grow'" in done.stdout


def test_a_linked_lock_stays_a_link(reproduced: DvcProject, tmp_path: Path) -> None:
    file, elsewhere = reproduced.root / "dvc.lock", tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    code = "from flame_core.dvc_project.whole_files import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "repro", "--quiet", "--force", "--single-item", "grow"],
        cwd=reproduced.root,
        env=environment(),
        check=True,
    )
    assert file.is_symlink() and "grow" in elsewhere.read_text()


def test_a_file_that_a_group_may_write_stays_so(tmp_path: Path) -> None:
    """A plain `dvc` of another member writes it in place."""
    file = tmp_path / "dvc.lock"
    file.touch()
    file.chmod(0o664)
    replace_whole(file, "stages: {}")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("stages: {}", 0o664)
