"""The files of a new project. An existing file is never replaced.

| file | holds |
|---|---|
| `params.yaml` | all that changes a result |
| `dvc.yaml`, `recipes/`, `versions.yaml` | graph, recipes, versions of the stages' code; `flame upgrade` renews them |
| `.flame-project.yaml` | those files as they were shipped, the base of later merges |
| `.env.example` | all settings with their meaning; `.env` is read |
| `pyproject.toml` | where `dagster dev` finds the assets |
| `.dvc/`, `.dvcignore`, `.gitignore` | of DVC and git |
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flame_core.errors import ParamsError, ResourceError
from flame_core.git import git
from flame_core.names import is_text, shown
from flame_core.project.record import RECORD, record_text, shipped_files
from flame_core.workspace import dvc, environment, require_plain_path

PYPROJECT = """\
# Where `flame ui` and `dagster dev` find the assets. `flame ui` also keeps a history, and opens MLflow.
[tool.dagster]
module_name = "orchestration.definitions"
code_location_name = "flame"
"""
GITIGNORE = """\
.venv/
.flame/
.env
__pycache__/
/data/*
"""
DVCIGNORE = """\
/.venv
/.flame
.gather
"""
DVC_GITIGNORE = "/config.local\n/tmp\n/cache\n"  # as DVC writes it; config.local may hold logins of remotes
_CORE = "[core]\n    analytics = false\n    check_update = false\n    autostage = false\n"
_MAY_BE_THERE = {".git", ".venv"}


def require_new(root: Path) -> None:
    """Refuse a folder that holds anything but git's and Python's own folders.

    Raises:
        ParamsError: names what is there, and what to do.
    """
    if not is_text(str(root)):
        raise ParamsError(f"{shown(str(root))}: the path of a project is UTF-8; name another folder")
    require_plain_path(root)
    if root.exists() and not root.is_dir():
        raise ParamsError(f"{root} is a file; name a new folder")
    there = sorted(path.name for path in root.iterdir() if path.name not in _MAY_BE_THERE) if root.is_dir() else []
    if (root / RECORD).is_file():
        raise ParamsError(f"{root} is a project already; `flame upgrade` brings it to the installed version")
    if there:
        some = ", ".join(there[:5]) + (", ..." if there[5:] else "")
        raise ParamsError(
            f"{root} is not empty ({some}), and nothing in it would be touched: name a new folder; pictures stay where "
            "they are (`flame init my-project --images FOLDER`)"
        )


@contextmanager
def removed_on_failure(root: Path) -> Iterator[None]:
    """Leave nothing behind in `root` if the body fails, so that the same command can be given again."""
    before = {path.name for path in root.iterdir()} if root.is_dir() else None
    try:
        yield
    except BaseException:
        for path in [] if not root.is_dir() else list(root.iterdir()):
            if before is None or path.name not in before:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if before is None and root.is_dir():
            root.rmdir()
        raise


def create(root: Path, params: str) -> list[str]:
    """Write a project with these params; returns the names of its files.

    The record is written last: until then, a folder that a kill left is no project.

    Raises:
        ResourceError: `dvc init` failed.
    """
    shipped = shipped_files()
    files = {
        **shipped,
        "params.yaml": params,
        "pyproject.toml": PYPROJECT,
        ".gitignore": GITIGNORE,
        ".dvcignore": DVCIGNORE,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    _initialise_dvc(root)
    (root / RECORD).write_text(record_text(shipped), "utf-8")
    return sorted([*files, RECORD, ".dvc/config"])


def _initialise_dvc(root: Path) -> None:
    top = git(root, "rev-parse", "--show-toplevel")
    ignored = top is not None and git(root, "check-ignore", "-q", ".") is not None
    scm = top is not None and not ignored
    options = ["--no-scm"] if not scm else [] if Path(top or "").resolve() == root.resolve() else ["--subdir"]
    done = subprocess.run(
        [*dvc(), "init", "--quiet", *options], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ResourceError(f"`dvc init {' '.join(options)}` failed in {root}: {done.stderr.strip()}")
    (root / ".dvc" / "config").write_text(_CORE + ("" if scm else "    no_scm = true\n"), "utf-8")
    (root / ".dvc" / ".gitignore").write_text(DVC_GITIGNORE, "utf-8")  # without git too: `git init` may come later
