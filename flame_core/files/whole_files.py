"""Files that are there whole or not at all: written beside their place, and renamed into it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flame_core.errors import InputError
from flame_core.files.disk_errors import disk_error, place_error
from flame_core.files.whole_folders import scratch


def put(path: Path, content: bytes) -> None:
    """Replace a file atomically, and only if its content changes: another process may be reading it.

    Its mode is kept. What a killed process left beside it goes with the next file that is written in its folder.
    """
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(path.parent) as folder:
        new = folder / "new"
        try:
            new.write_bytes(content)
        except OSError as error:
            error.filename = error.filename or str(path)  # a full disk's does not say where
            raise
        with suppress(FileNotFoundError):  # it is new
            shutil.copymode(path, new)
        new.replace(path)


@contextmanager
def clear_output_errors(path: Path, option: str) -> Iterator[None]:
    """Turn errors of what is written to the place that the user named with `option` into ones that name it.

    Raises:
        InputError: it cannot be a file, or a folder.
        ResourceError: the disk is full, or the user may not write there.
    """
    try:
        yield
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG  # the fault of what the user wrote, not of the disk
        if not too_long and (refused := disk_error(error, path)) is not None:
            raise refused from error
        why = place_error(error) or error.strerror or error
        raise InputError(f"{option} {path} cannot be written: {why}") from None


def write_output(path: Path, text: str, option: str) -> None:
    """Write a text to the file that the user named with `option`; what is there stays if this fails.

    Raises:
        InputError: it cannot be a file.
        ResourceError: the disk is full, or the user may not write there.
    """
    from flame_core.names import expanded  # which imports pydantic

    path = expanded(path)
    with clear_output_errors(path, option):
        if path.exists() and not path.is_file():  # a device
            path.write_bytes(text.encode())
        else:
            put(Path(os.path.realpath(path)), text.encode())  # a link stays one
