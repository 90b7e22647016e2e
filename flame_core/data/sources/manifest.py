"""Size and sha256 of every file of a source that is read in place, so that a later change is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flame_core import reporting
from flame_core.data.sources import Problem
from flame_core.data.sources.listing import SourceFile
from flame_core.digest import file_sha256
from flame_core.settings import settings


def make_manifest(folder: Path, files: Sequence[Path], problems: list[Problem]) -> list[SourceFile]:
    """The manifest of `files` below `folder`, in their order; those that cannot be read become `problems`."""
    entries: list[SourceFile] = []
    with ThreadPoolExecutor(settings().workers) as pool, reporting.progress("read files", len(files), "file") as bar:
        for path, entry in zip(files, pool.map(lambda path: _entry(folder, path), files), strict=True):
            if isinstance(entry, SourceFile):
                entries.append(entry)
            else:
                problems.append(Problem(_printable(path.relative_to(folder)), "unreadable_file", entry))
            bar.advance()
    return entries


def _entry(folder: Path, path: Path) -> SourceFile | str:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
        return SourceFile(name, path.stat().st_size, file_sha256(path))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError as error:
        return error.strerror or str(error)


def _printable(path: Path) -> str:
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
