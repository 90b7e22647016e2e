"""A file of a hub data set as a unit: fetched once, found again by its digest, without what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.hub.access import HubFile, fetch_file
from flame_core.data.hub.rows import PLACE, ROWS, read_place, take_apart
from flame_core.data.hub.without import copy_members, copy_rows
from flame_core.data.sources import ImageRef
from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.tar_content import read_samples
from flame_core.digest import value_digest
from flame_core.work import Unit, UnitRecord, WorkCache


@dataclass(frozen=True)
class FileTask:
    """A file that becomes a unit."""

    repo: str
    commit: str
    file: HubFile
    image_column: str
    work: WorkCache
    forgotten: Forgotten = NOTHING

    @property
    def digest(self) -> str:
        """Of the bytes, by the hub's own word, so that a file is found again at another commit."""
        about = {"path": self.file.path, "size": self.file.size, "bytes": self.file.sha256 or self.file.blob_id}
        column = None if is_tar(self.file) else self.image_column
        return value_digest({"unit": "hub file", **about, "image_column": column})


def is_tar(file: HubFile) -> bool:
    """Whether a file is read as webdataset; else it is a parquet table."""
    return file.path.lower().endswith(".tar")


def fetch(task: FileTask) -> Unit:
    """The unit of a file, found or fetched, without what is forgotten; nothing is fetched again for that."""
    unit = task.work.find(task.digest) or task.work.compute(task.digest, lambda folder: _fetch(task, folder))
    if not any(True for _ in _forgotten(task, unit.folder)):
        return unit
    return task.work.mend(task.digest, lambda folder, _: _copy_rest(task, unit, folder), lambda _: True)


def _forgotten(task: FileTask, folder: Path) -> Iterator[str]:
    """What is forgotten and still there: names of samples of a tar, numbers of rows of a table."""
    if not task.forgotten.rows:
        return
    stem = task.file.path.rpartition(".")[0]
    if is_tar(task.file):
        for sample in read_samples(folder, task.file.path, [], Unused()):
            if task.forgotten.names(safe_key(f"{stem}/{sample.key}"), sample.image and sample.image.sha256):
                yield sample.key
        return
    for number, place in enumerate(pq.read_table(folder / ROWS, columns=[PLACE]).column(0).to_pylist()):
        image = read_place(folder, place)
        sha256 = image.sha256 if isinstance(image, ImageRef) else None
        if place is not None and task.forgotten.names(safe_key(f"{stem}/{number + 1:08d}"), sha256):
            yield str(number)


def _copy_rest(task: FileTask, unit: Unit, folder: Path) -> UnitRecord:
    """Copy what is not forgotten of a unit; the rows of a table keep their numbers, which are in their keys."""
    gone = set(_forgotten(task, unit.folder))
    if is_tar(task.file):
        (folder / task.file.path).parent.mkdir(parents=True, exist_ok=True)
        keys = {sample.key for sample in read_samples(unit.folder, task.file.path, [], Unused())}
        copy_members(unit.folder / task.file.path, folder / task.file.path, gone, keys - gone)
        left_out = unit.record.counts.get(FORGOTTEN, 0) + len(gone)
        return UnitRecord({"bytes": (folder / task.file.path).stat().st_size, FORGOTTEN: left_out})
    return UnitRecord({"rows": copy_rows(unit.folder, folder, {int(number) for number in gone})})


def _fetch(task: FileTask, folder: Path) -> UnitRecord:
    with TemporaryDirectory(dir=folder) as own:
        fetched = fetch_file(task.repo, task.commit, task.file, Path(own))
        if not is_tar(task.file):
            rows = take_apart(fetched, f"{task.repo}: {task.file.path}", task.image_column, folder)
            return UnitRecord({"rows": rows})
        place = folder / task.file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        fetched.rename(place)
    return UnitRecord({"bytes": task.file.size})


def count_samples(file: HubFile, unit: Unit) -> int:
    """How many samples a file holds."""
    if not is_tar(file):
        return pq.read_metadata(unit.file(ROWS)).num_rows
    return sum(1 for _ in read_samples(unit.folder, file.path, [], Unused()))
