"""What a disk refuses, as errors that say where and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flame_core.errors import ResourceError

MAKE_ROOM = "Free some room and run the same command again: finished work is kept"
SQLITE_FULL = "database or disk is full"  # as SQLite says it
_CUT = re.compile(r"\d+ requested and \d+ written")  # numpy's error when the disk took only a part of an array


@contextmanager
def clear_disk_errors(place: Path) -> Iterator[None]:
    """Turn a disk's refusal into an error that says where; nothing incomplete is published."""
    try:
        yield
    except OSError as error:
        if (refused := disk_error(error, place) or place_error(error)) is not None:
            raise refused from error
        raise


def disk_error(error: OSError, place: Path | None = None) -> ResourceError | None:
    """What to tell the user if a disk is full, may not be written, or takes no such name; None for any other error.

    `place` is what was being written, in case the error names no file.
    """
    where = error.filename2 or error.filename or place or Path.cwd()
    cut = error.errno is None and _CUT.fullmatch(str(error)) is not None
    if cut or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        why = "No space left on device" if cut else error.strerror
        return ResourceError(f"{place or where}: {why}. {MAKE_ROOM}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        path = Path(os.fsdecode(where)).absolute()
        there = os.access(path, os.F_OK)  # nothing in a closed folder can be asked whether it is a file
        above = [] if there and path.is_file() else [path, *path.parents]
        closed = [folder for folder in above if os.access(folder, os.F_OK) and not os.access(folder, os.W_OK)]
        return ResourceError(
            f"{closed[0] if closed else path}: {error.strerror}. This user may not read or write there: change its "
            "rights, or work in a copy of the project that belongs to you"
        )
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return ResourceError(
            f"{place or where}: {error.strerror}. A mount point cannot be replaced: mount the disk one folder higher, "
            "or put a link to a folder of that disk here"
        )
    if error.errno == errno.ENAMETOOLONG:
        return ResourceError(f"{os.fsdecode(where)}: {error.strerror}. Most disks take 255 bytes a name")
    return None


def place_error(error: OSError, owner: str | None = None) -> ResourceError | None:
    """What to tell the user if a file or a lost link is where a folder should be; None for any other error.

    `owner` is who keeps something in that folder.
    """
    if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
        return None
    in_place = error.errno == errno.EEXIST and error.filename2 is None  # not of a link, whose source is a file
    for name in (error.filename, error.filename2):
        if isinstance(name, str | bytes | os.PathLike):
            path = Path(os.fsdecode(name)).absolute()
            for each in reversed((path, *path.parents)):
                if each.is_symlink() and not each.exists():
                    lost = f"{each} is a link to {each.readlink()}, which is not there"
                    return ResourceError(f"{lost}: mount the disk that holds it, or remove the link")
                if each.is_file() and (each != path or in_place):
                    wanted = f"{owner} has a folder" if owner else "a folder is needed"
                    return ResourceError(f"{each} is a file, where {wanted}: move it away")
    return None


def make_folder(folder: Path, owner: str) -> None:
    """Make a folder, with those above it, unless it is there; `owner` is who keeps something in it.

    Raises:
        ResourceError: there is a file in its place, or a link to what is not there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if (refused := place_error(error, owner)) is not None:
            raise refused from None
        raise
