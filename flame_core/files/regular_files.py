"""Files in users' folders: which ones to skip, and how to open one that may turn out to be a pipe or a device.

Opening a pipe waits for a writer, and a device may have no end, so both are refused before a byte is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_PIECE = 1 << 20


def is_hidden(name: str) -> bool:
    """Whether to skip a file, member or folder of this name: `.git`, `._x.jpg`, and macOS's `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def kind_of(mode: int) -> str | None:
    """The kind of file that this `st_mode` means, in words; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device, a socket or a folder.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if kind := kind_of(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"is {kind}, not a file", str(path))
    return os.fdopen(handle, "rb")


def size_and_sha256(path: Path, largest: int) -> tuple[int, str]:
    """Size in bytes and sha256 of a regular file of at most `largest` bytes.

    Raises:
        OSError: it cannot be read, is not a regular file, has more bytes, or changed while it was being read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, more than the {largest:,} that are read", str(path))
        digest = hashlib.sha256()
        left = size
        while left and (piece := file.read(min(_PIECE, left))):
            digest.update(piece)
            left -= len(piece)
        if left or os.fstat(file.fileno()).st_size != size:
            raise OSError(errno.EIO, "changed while it was being read", str(path))
    return size, digest.hexdigest()
