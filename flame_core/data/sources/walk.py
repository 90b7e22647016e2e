"""Lists all files below a folder: each real folder once, links to folders too; everything skipped is recorded.

A link out of the folder is followed only if params allow it, because a folder from someone else may contain a link to
anything: `s.txt -> /etc/passwd` would become a caption. A project in the folder is left out:
what it makes of the pictures would be read with them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Unused
from flame_core.files.regular_files import is_hidden, kind_of
from flame_core.layout import ROOT_MARKS
from flame_core.names import printable


@dataclass
class Walk:
    """A walk below `folder`; names are relative to it, with `/`."""

    folder: Path
    follow_out: bool  # follow links that lead out of the folder
    problems: list[Problem]
    unused: Unused
    files: list[str] = field(default_factory=list)  # regular files and links to such, sorted by folder
    failed: list[str] = field(default_factory=list)  # entries that must not or cannot be read; each is a problem too
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._root = os.path.realpath(self.folder)
        pending = [""]
        while pending or self._links:
            if not pending:  # links to folders last, so that a folder inside is found by its own name
                self._links.sort(key=_parts, reverse=True)
                pending.append(self._links.pop())
            pending += self._read(pending.pop())
        self.files.sort(key=_parts)

    def _read(self, name: str) -> list[str]:
        """Record a folder's entries and return the folders among them."""
        path = self.folder / name
        try:
            about = path.stat()
            identity = (about.st_dev, about.st_ino)
            if identity in self._seen:
                self.unused.add("linked_folder", name, "folder")
                return []
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(Problem(printable(name), "unreadable_folder", error.strerror or str(error)))
            return []
        self._seen.add(identity)
        if name and {entry.name for entry in entries} >= ROOT_MARKS:
            self.unused.add("project", name, "folder")
            return []
        folders = (self._entry(entry, f"{name}/{entry.name}" if name else entry.name) for entry in entries)
        return [folder for folder in folders if folder]

    def _entry(self, entry: os.DirEntry[str], name: str) -> str | None:
        """Record one entry; return its name if it is a folder to read."""
        try:
            if is_hidden(entry.name):
                self.unused.add("hidden", name, "folder" if entry.is_dir(follow_symlinks=False) else None)
                return None
            if entry.is_dir(follow_symlinks=False):
                return name
            about = entry.stat()  # of what a link leads to
            if entry.is_symlink() and not self.follow_out and self._leads_out(entry.path):
                self._fail(
                    name,
                    "link_outside",
                    "a link out of the folder; put a copy in its place, or trust such links with `links: anywhere`",
                )
            elif entry.is_dir():
                self._links.append(name)
            elif kind := kind_of(about.st_mode):
                self._fail(name, "not_a_file", f"is {kind}, not a file")
            else:
                self.files.append(name)
        except OSError as error:
            self._fail(name, "unreadable_file", error.strerror or str(error))
        return None

    def _fail(self, name: str, reason: str, detail: str) -> None:
        self.failed.append(name)
        self.problems.append(Problem(printable(name), reason, detail))

    def _leads_out(self, path: str) -> bool:
        target = os.path.realpath(path)
        return target != self._root and not target.startswith(self._root.rstrip("/") + "/")


def _parts(name: str) -> list[str]:
    return name.split("/")
