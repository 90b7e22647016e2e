"""Writes an exported folder: aside first, then renamed, so it is there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flame_core.errors import InputError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_files import clear_output_errors
from flame_core.files.whole_folders import publish, scratch
from flame_core.names import expanded, shown
from flame_core.verification import write_digests


def write_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Call `write(a new folder)`, add `digests.json` with the sha256 of every file, and make it `out`.

    Raises:
        InputError: `out` is there already and not an empty folder, or cannot be a folder.
        ResourceError: the disk refuses.
    """
    out = expanded(out).absolute()
    require_new(out)
    with clear_output_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
    with clear_disk_errors(out), scratch(out.parent) as folder:
        write(folder)
        write_digests(folder)
        require_new(out)  # since `write` may take minutes
        publish(folder, out)


def require_new(out: Path) -> None:
    """Refuse a place that holds anything, or where no folder can be made.

    Raises:
        InputError: names it.
        ResourceError: the disk refuses.
    """
    with clear_output_errors(out, "--out"):
        with suppress(FileNotFoundError, NotADirectoryError):
            out.lstat()  # refuses a name that is too long, for which `exists` is False since Python 3.14
        taken = out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir())))
        if not taken:
            with scratch(next(above for above in out.parents if os.path.lexists(above))):
                pass
    if taken:
        raise InputError(f"--out {shown(str(out))} is there already: name a new folder, or remove that one")
