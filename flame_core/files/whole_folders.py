"""Folders that are there whole or not at all: made in a scratch folder beside their place, and renamed into it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE in Linux's headers
SCRATCH = ".tmp"  # the folder of `scratch_below`
_NEXT = ".next"  # suffix of a finished generation that has not replaced the last one yet
_TRIES = 100  # to make a folder that other processes keep removing
_ABANDONED = 7 * 86400  # seconds without a change, after which another machine's scratch folder is removed
log = logging.getLogger(__name__)
_SCRATCH = re.compile(r"\.tmp-(?P<node>[0-9a-f]{12})-(?P<pid>\d{1,10})-\w+")


@cache
def node_id() -> str:
    """12 hex digits that name this machine until it is started again, and this container if it has its own processes.

    Process ids mean the same process only where this is the same. A host name does not suffice: containers and cloned
    machines share one.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A private folder beside the final ones (so a rename is atomic); removed at the end if it still exists.

    Also removes folders left behind by killed processes of this machine, and those that nobody has changed for a week.
    """
    _remove_abandoned(parent)
    folder = _private(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_below(parent: Path) -> Iterator[Path]:
    """As `scratch`, for a parent that may have millions of entries: the private folder is in its folder `.tmp`.

    So only what is being written now is looked through. `.tmp` is removed with its last folder.
    """
    _remove_abandoned_once(parent)
    place = parent / SCRATCH
    try:
        with scratch(place) as folder:
            yield folder
    finally:
        with suppress(OSError):  # others are at work in it
            place.rmdir()


def _private(parent: Path) -> Path:
    """A new folder in `parent`, which another process may remove while it is empty."""
    tries = 0
    while True:
        try:
            return Path(tempfile.mkdtemp(prefix=f".tmp-{node_id()}-{os.getpid()}-", dir=parent))
        except FileNotFoundError:
            if (tries := tries + 1) > _TRIES:  # it cannot be made: a link to a disk that is not mounted, `/proc`
                raise
        with suppress(FileExistsError):  # it was there, and is removed at this moment
            parent.mkdir(parents=True, exist_ok=True)


def _remove_abandoned(parent: Path) -> None:
    try:
        found = list(parent.glob(".tmp-*"))
    except FileNotFoundError:  # another process removed it
        return
    for left in found:
        if name := _SCRATCH.fullmatch(left.name):
            mine = name["node"] == node_id()
            if not psutil.pid_exists(int(name["pid"])) if mine else _unchanged_since(left) > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


@cache
def _remove_abandoned_once(parent: Path) -> None:
    """Once in a process, for older versions, which had their scratch folders in `parent` itself."""
    _remove_abandoned(parent)


def _unchanged_since(folder: Path) -> float:
    """Seconds since the last change in a folder; 0 if it cannot be read."""
    try:
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:  # its process is at work in it
        return 0.0


def publish(folder: Path, target: Path, *, replace: bool = False) -> None:
    """Rename a finished folder into place.

    If there is one, it stays, since another process was first with an equal result; with `replace` it is replaced, in
    steps that `settle` completes after a kill.
    """
    _open_as_usual(folder)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    place = target.with_name(target.name + _NEXT) if replace and target.exists() else target
    try:
        folder.rename(place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    if place != target:
        settle(target)


def _open_as_usual(folder: Path) -> None:
    """Give a folder of `mkdtemp`, which is private, the mode that any new folder there has: by umask, and a group's."""
    usual = folder / ".mode"
    usual.mkdir()
    folder.chmod(stat.S_IMODE(usual.stat().st_mode))
    usual.rmdir()


def replace_folder(folder: Path, target: Path, aside: Path) -> None:
    """Put a finished folder in the place of `target`, whose last generation lies in `folder` or `aside` afterwards.

    All three are on one file system. Where that can exchange names (Linux's `renameat2`: ext4, XFS, Btrfs, tmpfs), one
    of both is at `target` at every moment, whenever this process is killed; elsewhere (NFS), neither is for a moment.
    """
    if target.exists() and not _exchange(folder, target):
        target.rename(aside)
    if not target.exists():
        folder.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False where that cannot be done."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc has it since 2.28
    if renameat2 is None:
        return False
    return renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0


def settle(target: Path) -> None:
    """Put a finished generation that waits beside `target` in its place."""
    following = target.with_name(target.name + _NEXT)
    if not following.exists():
        return
    with scratch_below(target.parent) as folder, locked(target.parent):
        if following.exists():  # unless another process has done it meanwhile
            if target.exists():
                target.rename(folder / "last")
            following.rename(target)


@contextmanager
def alone(place: Path, doing: str = "computes the same already") -> Iterator[None]:
    """Work at `place` while no other process does so by this function; if one does, say so and wait for it.

    The lock is a file beside `place`, and ends with the process. Where a file system has no locks, there is none.
    `doing` is what the other process is said to do.
    """
    path = place.with_name(f"{place.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _exclusive(path, doing)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _exclusive(path: Path, doing: str) -> int:
    """A file that this process has opened and locked, and that is still there."""
    told = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    log.info("another process %s; waiting for it (%s)", doing, path)
                told = True
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            return handle
        except BaseException:  # Ctrl-C
            os.close(handle)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # the other process removed it at its end


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
