"""Counts the files beside the shards of a webdataset by kind, without reading them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Unused
from flame_core.files.regular_files import is_hidden
from flame_core.names import printable

_SIDE_FILE = re.compile(r"(_stats\.json|\.parquet)$")  # of img2dataset: 00000_stats.json, 00000.parquet


Entries = Callable[[str], list[tuple[str, bool]]]  # of a folder by its path: (name, whether it is a folder), sorted


def note_rest(folder: Path, shards: Sequence[Path], problems: list[Problem], unused: Unused) -> None:
    """Count every file and folder that is not a shard, in the folders of `shards` and their parents up to `folder`.

    `shards` is everything that the pattern matched. A folder without a shard counts as one and is not opened.
    """

    def entries(place: str) -> list[tuple[str, bool]]:
        with os.scandir(folder / place) as found:
            return sorted((entry.name, _is_folder(entry)) for entry in found)

    note_others({shard.relative_to(folder).as_posix() for shard in shards}, entries, problems, unused)


def note_others(names: set[str], entries: Entries, problems: list[Problem], unused: Unused) -> None:
    """`note_rest` of shards by their names, where `entries` tells what is in a folder."""
    stems = {name.removesuffix(".tar") for name in names}
    above = {""} | {parent.as_posix() for name in names for parent in Path(name).parents} - {"."}
    for place in sorted(above):
        try:
            found = entries(place)
        except OSError as error:
            problems.append(Problem(printable(place), "unreadable_folder", error.strerror or str(error)))
            continue
        for own, is_folder in found:
            name = f"{place}/{own}" if place else own
            if name in names or name in above:
                continue
            kind = "folder" if is_folder else None
            if is_hidden(own):
                unused.add("hidden", name, kind)
            elif _SIDE_FILE.sub("", name) in stems and _SIDE_FILE.search(name):
                unused.add("side_file", name)
            else:
                unused.add("not_matched", name, kind)


def listed_entries(paths: Iterable[str]) -> Entries:
    """`Entries` of a list of files by their paths."""
    folders: dict[str, dict[str, bool]] = {}
    for path in paths:
        parts = path.split("/")
        for depth, part in enumerate(parts):
            folders.setdefault("/".join(parts[:depth]), {})[part] = depth + 1 < len(parts)
    return lambda place: sorted(folders.get(place, {}).items())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False
