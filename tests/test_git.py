"""Git where it is there, and where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.git import git
from flame_core.tracking.provenance import git_state
from flame_core.version import code_commit

ROOT = Path(__file__).parents[1]


def test_it_says_what_git_prints_and_nothing_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "repository"
    folder.mkdir()
    assert git(folder, "status") is None and git_state(folder) == {}
    assert git(folder, "init", "--quiet") == ""
    assert git(folder, "rev-parse", "--is-inside-work-tree") == "true"
    assert git(folder, "rev-parse", "HEAD") is None  # there is no commit yet
    assert git_state(folder) == {}


def test_a_machine_without_git_is_like_a_folder_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git(ROOT, "rev-parse", "HEAD") is None
    assert git_state(ROOT) == {} and code_commit(Path(__file__)) is None
