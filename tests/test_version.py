"""The commit that `flame --version` shows."""

from __future__ import annotations

import subprocess

from flame_core.version import code_commit


def git(root, *arguments):
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_shown_if_git_tracks_the_code(tmp_path):
    file, other = tmp_path / "code.py", tmp_path / "installed.py"
    file.write_text("a = 1\n")
    assert code_commit(file) is None  # no git tree
    git(tmp_path, "init", "--quiet")
    assert code_commit(file) is None  # no commit
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert code_commit(file) == f"commit {commit}"
    file.write_text("a = 2\n")
    assert code_commit(file) == f"commit {commit} and changes to tracked files"
    other.touch()  # as site-packages in a virtual environment below somebody's git tree
    assert code_commit(other) is None
