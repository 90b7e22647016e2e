"""Rot as a disk makes it: one bit of a file is another, its size and times are what they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flip(path: Path, place: int, bit: int) -> None:
    """Turn one bit of a file round, in place; the same call again mends it."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def put_back(path: Path) -> Iterator[None]:
    """A file has its bytes again at the end."""
    before = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(before)
