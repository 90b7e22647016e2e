"""The list of the pairs in one file of a hub data set, which is a unit of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flame_core.data.forgotten import Forgotten
from flame_core.data.hub.access import HubFile
from flame_core.data.hub.fetching import is_tar
from flame_core.data.hub.rows import PLACE, ROWS, read_place
from flame_core.data.shards import Split
from flame_core.data.sources import ImageRef, RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.kept_columns import Records
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing_writer import listed_part, write_listing
from flame_core.data.sources.picture_file import PICTURE_FILE
from flame_core.data.sources.record import RECORDS, RecordReader
from flame_core.data.sources.splits import in_split
from flame_core.data.sources.table import Table, read_table
from flame_core.data.sources.tar_content import read_samples
from flame_core.errors import InputError
from flame_core.params import HubSource
from flame_core.work import Unit, UnitRecord, WorkCache

_OF_A_FILE = {"caption_column", "language", "group_field", "keep_columns"}  # params of the source


@dataclass(frozen=True)
class FileList:
    """A fetched file to list: `split` is that of all its samples, if the source says so; `most` of them are taken."""

    file: HubFile
    fetched: Unit
    split: Split | None
    most: int | None
    licence: str | None
    params: HubSource
    work: WorkCache
    forgotten: Forgotten


def list_file(task: FileList) -> Unit:
    """The unit with the list, found in the work cache or written. Its pictures are relative to the source's folder."""
    inputs = {
        "unit": "hub list",
        "params": task.params.model_dump(include=_OF_A_FILE),
        "records": RECORDS,
        "file": [task.file.path, task.fetched.sha256],
        "licence": task.licence,
        "split": task.split,
        "most": task.most,
        **task.forgotten.identity,
    }
    return task.work.get(inputs, partial(_write, task))


def place_of(file: HubFile) -> str:
    """Where the pictures of a file are in the source's folder."""
    return f"files/{file.path}" if is_tar(file) else f"files/{file.path}.{PICTURE_FILE}"


def _write(task: FileList, folder: Path) -> UnitRecord:
    problems, unused = Problems(), Unused()
    record = write_listing(
        folder,
        folder,
        _pairs(task, folder, problems, unused),
        about={},
        problems=problems,
        unused=unused,
        keep_columns=task.params.keep_columns,
        forgotten=task.forgotten,
    )
    return listed_part(folder, record, unused)


def _pairs(task: FileList, folder: Path, problems: Problems, unused: Unused) -> Iterator[tuple[RawPair, Records]]:
    params = task.params
    reader = RecordReader((params.caption_column,), params.language, params.group_field, task.licence)
    read = _tar_pairs if is_tar(task.file) else _table_pairs
    for number, (pair, records) in enumerate(read(task, folder / place_of(task.file), reader, problems, unused)):
        if task.most is not None and number >= task.most:
            unused.add("beyond_max_samples", pair.key, "samples")
            continue
        yield in_split(pair, task.split), records


def _tar_pairs(
    task: FileList, place: Path, reader: RecordReader, problems: Problems, unused: Unused
) -> Iterator[tuple[RawPair, Records]]:
    stem = task.file.path.rpartition(".")[0]
    for sample in read_samples(task.fetched.folder, task.file.path, problems, unused):
        image = sample.image and replace(sample.image, path=place)
        key = safe_key(f"{stem}/{sample.key}")
        pair = reader.pair(key, image, sample.records, texts=sample.texts, unused=unused)
        yield replace(pair, unread=sample.unread), sample.records


def _table_pairs(
    task: FileList, place: Path, reader: RecordReader, problems: Problems, unused: Unused
) -> Iterator[tuple[RawPair, Records]]:
    stem, rows = task.file.path.rpartition(".")[0], task.fetched.file(ROWS)
    needed = (PLACE, *reader.caption_fields, *filter(None, [reader.group_field]), *task.params.keep_columns)
    found = Problems()
    table = Table(rows, PLACE, needed, reader.fields, "utf-8", None, found)
    try:
        for number, row in read_table(table):
            image = read_place(place, row.pop(PLACE))
            key = safe_key(f"{stem}/{number:08d}")
            lost = None if isinstance(image, ImageRef) else f"{key} ({image or 'no bytes'})"
            found_image = image if isinstance(image, ImageRef) else None
            yield reader.pair(key, found_image, [row], missing=lost, unused=unused), [row]
    except InputError as error:
        raise InputError(str(error).replace(str(rows), f"{task.params.repo}: {task.file.path}")) from None
    for problem in found.rows():
        problems.append(replace(problem, file=task.file.path))
