"""Opens a DVC project in this process: handles its lock, finds who holds it, and turns DVC's errors into two of ours.

Works for any DVC project. Imports DVC only when a project is opened.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from flame_core.dvc_project.errors import DvcBusyError, DvcProjectError, located
from flame_core.dvc_project.recorded import LOCK
from flame_core.dvc_project.whole_files import edit_held_paths, write_whole

if TYPE_CHECKING:
    from dvc.repo import Repo

_BUSY = re.compile(r"'(?P<path>[^']*)' is busy, it is being blocked by:\s*(?P<who>.*?)(?:\n\s*\n|\Z)", re.DOTALL)
_TORN_READS = 20  # attempts, 50 ms apart
T = TypeVar("T")


class _TornRead(Exception):
    """The `dvc.lock` of `root` was read while DVC rewrote it."""

    def __init__(self, error: Exception, root: Path) -> None:
        super().__init__(error)
        self.root = root


@contextmanager
def opened(root: Path, *, locked: bool = False) -> Iterator[Repo]:
    """The project in `root`, with DVC's repository lock if `locked`.

    Raises:
        DvcProjectError: one of its files is broken; names the file and, if known, the line.
        DvcBusyError: the lock was not available within DVC's timeout (3 s), or a path is in use.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    write_whole()
    try:
        with Repo(str(root)) as repo, _holding(repo, root) if locked else nullcontext():
            yield repo
    except LockError as error:
        raise DvcBusyError(_first_lines(error)) from None
    except DvcException as error:
        if LOCK in str(getattr(error, "path", "")):
            raise _TornRead(error, root) from None
        raise DvcProjectError(located(error, root)) from None


def temporary_folder(root: Path) -> Path:
    """DVC's `.dvc/tmp`, of the project in `root` or of a folder above it that DVC was set up in.

    Raises:
        DvcProjectError: there is none.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Path(Repo.find_dvc_dir(str(root))) / "tmp"
    except NotDvcRepoError as error:
        raise DvcProjectError(located(error, root)) from None


@contextmanager
def _holding(repo: Repo, root: Path) -> Iterator[None]:
    """Hold DVC's repository lock; if it is not available, the error names the process that has it."""
    from dvc.lock import LockError

    try:
        repo.lock.lock()
    except LockError as error:
        raise DvcBusyError(_holder(root) or _first_lines(error)) from None
    try:
        yield
    finally:
        repo.lock.unlock()


def _holder(root: Path) -> str | None:
    """The process that holds the repository lock, if the lock file names it."""
    import psutil

    try:
        pid = int((temporary_folder(root) / "lock").read_text().split()[0])
        command = " ".join(psutil.Process(pid).cmdline())
    except (OSError, ValueError, IndexError, psutil.Error, DvcProjectError):
        return None
    return f"DVC's lock in {root} is held by process {pid} ({command[:200]})"


def busy_with(error: BaseException, root: Path) -> str:
    """What another process holds according to DVC's lock error, and that process, in one line."""
    return busy_path(str(error)) or _holder(root) or _first_lines(error)


def busy_path(text: str) -> str | None:
    """The path in use and the process that uses it, if DVC's output has such an error."""
    found = _BUSY.search(text)
    return found and f"{found['path']} is busy: {' '.join(found['who'].split())}"


def release_dead(root: Path) -> list[str]:
    """Release paths held by ended processes; returns those processes, as `process 123 (dvc repro)`.

    DVC does so itself, but not while such a process is a zombie, or another process has its number: a container that is
    started again gives out the same small numbers.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        hardlink = repo.config["core"].get("hardlink_lock", False)
        try:
            with edit_held_paths(repo.tmp_dir, repo.fs, hardlink) as lock:
                return _release(lock)
        except LockError:  # another process is using that file
            return []


def held_paths(root: Path) -> Any:
    """The content of DVC's file of held paths; None if there is none or it is being written."""
    try:
        return json.loads((temporary_folder(root) / "rwlock").read_text())
    except (OSError, ValueError, DvcProjectError):
        return None


def _release(lock: Any) -> list[str]:
    """Remove ended processes from the content of DVC's file of held paths."""
    readers = [info for infos in lock["read"].values() for info in infos]
    dead = {info["pid"]: info["cmd"] for info in (*readers, *lock["write"].values()) if _ended(**info)}
    kept = {path: [info for info in infos if info["pid"] not in dead] for path, infos in lock["read"].items()}
    lock["read"] = {path: infos for path, infos in kept.items() if infos}
    lock["write"] = {path: info for path, info in lock["write"].items() if info["pid"] not in dead}
    return [f"process {pid} ({command[:200]})" for pid, command in sorted(dead.items())]


def _ended(pid: int, cmd: str) -> bool:
    """Whether a process has ended that DVC noted with this command, its arguments behind the path of its program.

    `python -m dvc` alone is noted as `.../dvc/__main__.py`. Under a Python that was started with `-c`, as
    `multiprocessing` starts Dagster's steps, the arguments that DVC notes are the parent's.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        line = process.cmdline()
        if "-c" in line and "python" in PurePath(line[0]).name:
            return False
        last = PurePath(cmd.rsplit(" ", 1)[-1])
        return (last.parent.name if last.stem == "__main__" else last.stem) not in " ".join(line)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _first_lines(error: BaseException) -> str:
    """A lock error without its advice."""
    return str(error).split("\n\nIf there are no processes")[0]


def require_merged(root: Path) -> None:
    """Refuse a `dvc.lock` in which a merge left a conflict.

    Raises:
        DvcProjectError: names the line, and what to do.
    """
    try:
        lines = (root / LOCK).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for number, line in enumerate(lines, 1):
        if line.startswith("<<<<<<< "):
            raise DvcProjectError(
                f"{LOCK}, line {number}: a merge left a conflict here: take one side as a whole "
                f"(`git checkout --ours {LOCK}`, or `--theirs`), then `dvc checkout`; stages that the merged "
                "params or recipes change run again"
            )


def untorn(read: Callable[[], T]) -> T:
    """`read()`, repeated if DVC was rewriting `dvc.lock` meanwhile."""
    for _ in range(_TORN_READS):
        try:
            return read()
        except _TornRead:
            time.sleep(0.05)
    try:
        return read()
    except _TornRead as torn:
        require_merged(torn.root)
        raise DvcProjectError(
            f"{LOCK} cannot be read: {torn}. Restore it from version control, or delete it: stages then run "
            "again, or are taken from DVC's cache"
        ) from None
