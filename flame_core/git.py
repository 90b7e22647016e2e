"""Git, as far as it is there: a project may lie outside a repository, and a machine may have no git."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str, timeout: float | None = 30) -> str | None:
    """What a git command prints in a folder, without surrounding blanks.

    None without git, outside a repository, if git refuses, or after `timeout` seconds.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=timeout
        )
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
