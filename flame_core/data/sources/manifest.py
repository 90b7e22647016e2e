"""Size and sha256 of every file of a source that is read in place, so that later changes are detected."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flame_core import reporting
from flame_core.data.picture_kinds import is_picture, suffix_of
from flame_core.data.sources import Problem
from flame_core.data.sources.listing import SourceFile
from flame_core.files.regular_files import size_and_sha256
from flame_core.names import printable
from flame_core.settings import settings

TEXTS = frozenset({".txt", ".caption"})  # a caption per line
SIDECARS = TEXTS | {".json"}
LARGEST_TEXT, LARGEST_PICTURE = 1 << 26, 1 << 30  # bytes: whole files are held in memory
_ANY = 1 << 62


def make_manifest(
    folder: Path, files: Sequence[Path], problems: list[Problem], table: Path | None = None
) -> list[SourceFile]:
    """The manifest of `files` below `folder`, in their order; unreadable files become `problems`.

    A `table` may be larger than the text of a picture.
    """
    entries: list[SourceFile] = []
    with ThreadPoolExecutor(settings().workers) as pool, reporting.progress("read files", len(files), "file") as bar:
        for path, entry in zip(files, pool.map(lambda path: _entry(folder, path, path == table), files), strict=True):
            if isinstance(entry, SourceFile):
                entries.append(entry)
            else:
                problems.append(Problem(printable(path.relative_to(folder).as_posix()), "unreadable_file", entry))
            bar.advance()
    return entries


def _entry(folder: Path, path: Path, any_size: bool) -> SourceFile | str:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
        return SourceFile(name, *size_and_sha256(path, _ANY if any_size else _largest(name)))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError as error:
        return error.strerror or str(error)


def _largest(name: str) -> int:
    """The largest size in bytes that a file of this name may have; tars and tables are read in pieces."""
    if suffix_of(name) in SIDECARS:
        return LARGEST_TEXT
    return LARGEST_PICTURE if is_picture(name) else _ANY
