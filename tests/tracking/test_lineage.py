"""The chain from a model back to its origins; tests/integration/test_audit.py follows one as a whole."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flame_core.layout import Layout
from flame_core.tracking.chain import BROKEN, Link
from flame_core.tracking.lineage import _code, _judged
from flame_core.tracking.promotion import REASON, VERDICT
from flame_core.tracking.provenance import git_state

GONE = "0123456789" * 4


@pytest.fixture
def commits(tmp_path: Path) -> tuple[str, str]:
    """Two commits of a project in `tmp_path`."""

    def run(*command: str) -> None:
        subprocess.run(["git", *command], cwd=tmp_path, check=True)

    def commit(message: str) -> str:
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        run(*identity, "commit", "-q", "--allow-empty", "-m", message)
        return git_state(tmp_path)["git.commit"]

    run("init", "-q")
    return commit("trained"), commit("evaluated")


def code(tmp_path: Path, trained: tuple[str, str], evaluated: tuple[str, str] | None = None) -> Link:
    """The link for commits and whether their trees were clean."""
    tags = dict(zip(("git.commit", "git.clean"), trained, strict=True))
    if evaluated:
        tags |= dict(zip(("evaluated.git.commit", "evaluated.git.clean"), evaluated, strict=True))
    return _code(Layout(tmp_path, tmp_path), cast(Any, SimpleNamespace(tags=tags)))


def test_the_commits_of_training_and_last_evaluation_are_shown(tmp_path: Path, commits: tuple[str, str]):
    first, second = commits
    assert code(tmp_path, (first, "true")).facts == {"commit": first, "clean": "true"}  # of an earlier version
    assert code(tmp_path, (first, "true"), (first, "true")).facts == {"commit": first, "clean": "true"}
    found = code(tmp_path, (first, "true"), (second, "true"))
    assert found.facts == {"commit": first, "clean": "true", "last evaluated at": second} and not found.notes


def test_changes_that_no_commit_holds_are_told_for_either(tmp_path: Path, commits: tuple[str, str]):
    first, second = commits
    told = ["tracked files had changes that the commit does not hold"]
    later = ["at the last evaluation, tracked files had changes that its commit does not hold"]
    assert code(tmp_path, (first, "false")).notes == told
    assert code(tmp_path, (first, "false"), (second, "true")).notes == told
    assert code(tmp_path, (first, "true"), (second, "false")).notes == later
    assert code(tmp_path, (first, "true"), (first, "false")).notes == later


def test_a_commit_that_is_not_here_breaks_the_chain(tmp_path: Path, commits: tuple[str, str]):
    for trained, evaluated in ((GONE, commits[1]), (commits[0], GONE), (commits[0], "no commit")):
        found = code(tmp_path, (trained, "true"), (evaluated, "true"))
        assert found.status == BROKEN and len(found.notes) == 1 and "is not in this repository" in found.notes[0]


def test_the_verdict_of_the_gate_is_told_from_its_reason():
    assert _judged({VERDICT: "promoted", REASON: "there was no champion"}) == "promoted: there was no champion"
    assert _judged({VERDICT: "promoted"}) == "promoted" and _judged({}) == "not judged"
