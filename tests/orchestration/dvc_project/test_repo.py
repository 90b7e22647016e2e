"""Opening a DVC project: who holds its lock is said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestration.dvc_project.errors import DvcBusyError
from orchestration.dvc_project.project import DvcProject


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
