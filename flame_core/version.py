"""`flame --version`: the version of the package and, if it runs from a git tree, the commit."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "flame-mlops"


def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_version() -> str:
    """`0.1.0`, or `0.1.0 (commit 0123456789ab)`, with `and changes to tracked files` if there are any."""
    number = installed_version(PACKAGE) or "0 (not installed)"  # a source tree that was never installed
    commit = code_commit(Path(__file__))
    return f"{number} ({commit})" if commit else number


def code_commit(file: Path) -> str | None:
    """The commit of the git tree that tracks `file`; None if none does, as for a package installed from a wheel."""
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        commit = _git(file, "rev-parse", "--short=12", "HEAD")
        changed = _git(file, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"commit {commit}" + (" and changes to tracked files" if changed else "")


def _git(file: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=file.parent, capture_output=True, text=True, check=True, timeout=30
    )  # fmt: skip
    return done.stdout.strip()
