"""`flame --version`: the version of the package and, if it runs from a git tree, the commit."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flame_core.git import git

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
    if git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = git(file.parent, "rev-parse", "--short=12", "HEAD")
    changed = git(file.parent, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return f"commit {commit}" + (" and changes to tracked files" if changed else "")
