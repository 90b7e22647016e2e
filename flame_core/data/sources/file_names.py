"""Finds the file of a source that a table names, since tables are written on other machines and by hand.

It accepts the exact name, paths with backslashes or `..`, absolute paths inside the source's folder, names that use
another Unicode form (NFC, NFD) than the disk, and names with the number of a caption (`1.jpg#0`). It never takes a
similar file for the named one; it only mentions it. Nothing outside the list of files is found.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from flame_core.data.picture_kinds import is_picture


class FileNames:
    """The files of a source, named relative to `folder`; messages show only those of `shown`, by default all."""

    def __init__(self, folder: Path, names: Collection[str], shown: Collection[str] | None = None) -> None:
        self._roots = roots_of(folder)
        self._names = frozenset(names)
        shown = names if shown is None else shown
        self._first = min(shown, default=None)
        self._composed: dict[str, str | None] = {}
        self._alike: dict[str, str] = {}
        for name in sorted(names):
            composed = unicodedata.normalize("NFC", name)
            self._composed[composed] = None if composed in self._composed else name
        for name in sorted(shown):
            self._alike.setdefault(_folded(name), name)

    def find(self, name: str) -> str | None:
        """The file that a table calls `name`; None if there is none."""
        candidates = list(spellings(name, self._roots))
        for candidate in candidates:
            if candidate in self._names:
                return candidate
        composed = (self._composed.get(unicodedata.normalize("NFC", candidate)) for candidate in candidates)
        return next(filter(None, composed), None)

    def alike(self, name: str) -> str | None:
        """The file whose name differs only in folder, suffix, case, quoting or spaces; None if none does."""
        return self._alike.get(_folded(name))

    def why_missing(self, name: str) -> str:
        """A message for a name that is not found."""
        said = f"the table names {name[:200]!r}, which is no picture in the source's folder"
        if alike := self.alike(name):
            return f"{said}; the nearest is {alike!r}"
        return f"{said}; its pictures are called like {self._first!r}" if self._first else said


_NUMBERED = re.compile(r"(.*[^#])#\d{1,3}", re.DOTALL)  # Flickr8k's and Flickr30k's 1.jpg#0: a caption's number


def roots_of(folder: Path) -> list[str]:
    """The absolute paths of a folder: as it is called, and without links."""
    return list(dict.fromkeys((posixpath.normpath(folder.absolute()), os.path.realpath(folder))))


def spellings(name: str, roots: Iterable[str]) -> Iterator[str]:
    """Names below a folder that a table may mean by `name`, the likeliest first."""
    for text in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
        path = posixpath.normpath(text)
        for root in roots if path.startswith("/") else ():
            if path.startswith(f"{root.rstrip('/')}/"):
                yield path[len(root.rstrip("/")) + 1 :]
        yield PurePosixPath(text).as_posix()
        yield path
    if (unnumbered := without_number(name.strip())) != name.strip():
        yield from spellings(unnumbered, roots)


def without_number(name: str) -> str:
    """The name of a picture without the number of a caption; any other name, such as `dog #2`, as it is."""
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered and is_picture(numbered[1]) else name


def _folded(name: str) -> str:
    """A form that is equal for names that differ only in folder, suffix, case, quoting or spaces."""
    last = unquote(name.strip()).replace("\\", "/").rpartition("/")[2]
    stem = last.rpartition(".")[0] or last
    return unicodedata.normalize("NFKC", stem).casefold().strip()
