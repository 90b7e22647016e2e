"""The list of the pairs in one tar of a source `kind: webdataset`, which is a unit of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flame_core.data.forgotten import NOTHING, Forgotten
from flame_core.data.shards import Split
from flame_core.data.sources import RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.kept_columns import Records
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import SourceFile
from flame_core.data.sources.listing_writer import listed_part, write_listing
from flame_core.data.sources.record import RECORDS, RecordReader
from flame_core.data.sources.splits import in_split
from flame_core.data.sources.tar_content import read_samples
from flame_core.params import WebdatasetSource
from flame_core.work import Unit, UnitRecord, WorkCache

_OF_A_TAR = ("caption_field", "encoding", "language", "group_field", "licence", "keep_columns")  # params of the source


@dataclass(frozen=True)
class TarTask:
    """A tar to list: `split` is that of all its samples, if the source says so, and `most` how many are taken."""

    folder: Path  # of the source
    tar: SourceFile
    split: Split | None
    most: int | None
    params: WebdatasetSource
    work: WorkCache
    forgotten: Forgotten = NOTHING


def list_tar(task: TarTask) -> Unit:
    """The unit with the list, found in the work cache or written."""
    inputs = {
        "unit": "tar",
        "params": {name: value for name, value in task.params.identity.items() if name in _OF_A_TAR},
        "records": RECORDS,
        "file": [task.tar.path, task.tar.size, task.tar.sha256],
        "split": task.split,
        "most": task.most,
        **task.forgotten.identity,
    }
    return task.work.get(inputs, partial(_write, task))


def _write(task: TarTask, folder: Path) -> UnitRecord:
    problems, unused = Problems(), Unused()
    record = write_listing(
        folder,
        task.folder,
        _pairs(task, problems, unused),
        about={},
        problems=problems,
        unused=unused,
        keep_columns=task.params.keep_columns,
        forgotten=task.forgotten,
    )
    return listed_part(folder, record, unused)


def _pairs(task: TarTask, problems: Problems, unused: Unused) -> Iterator[tuple[RawPair, Records]]:
    name, params = task.tar.path, task.params
    reader = RecordReader((params.caption_field,), params.language, params.group_field, params.licence)
    for number, sample in enumerate(read_samples(task.folder, name, problems, unused, params.encoding)):
        if task.most is not None and number >= task.most:
            unused.add("beyond_max_samples", f"{name}/{sample.key}", "samples")
            continue
        key = safe_key(f"{name.rpartition('.')[0]}/{sample.key}")
        pair = reader.pair(key, sample.image, sample.records, texts=sample.texts, unused=unused)
        yield replace(in_split(pair, task.split), unread=sample.unread), sample.records
