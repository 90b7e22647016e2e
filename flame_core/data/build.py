"""Writes a shard: the chosen samples as a tar, and a table with the place of each picture in it.

A shard counts as done only after it was read back and every picture was decoded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from flame_core.data.captions_text import primary_language, same_text, text_id
from flame_core.data.scan import read_jpeg, read_row
from flame_core.data.shards import Sample, write_shard
from flame_core.work import UnitRecord, WorkCache

SHARD = "shard.tar"
ROWS = "rows.parquet"
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "sha256": pa.string(),
        "captions": pa.int32(),
        "primary": pa.string(),  # language
        "texts": pa.list_(pa.uint64()),  # ids of the captions
    }
)


@dataclass(frozen=True, slots=True)
class ScannedPair:
    """The place of a pair's scan: a row of a unit's table; `pictures` is the folder of its source's pictures."""

    folder: Path
    row: int
    pictures: Path


@dataclass(frozen=True, slots=True)
class SampleTask:
    """A sample: its pairs (the first gives everything except the captions) and ids of the captions to leave out."""

    key: str
    pairs: tuple[ScannedPair, ...]
    without: tuple[int, ...]


@dataclass(frozen=True)
class ShardTask:
    """The samples of a shard, in order."""

    samples: tuple[SampleTask, ...]
    work: WorkCache


@dataclass(frozen=True)
class BuiltShard:
    """A finished shard: `folder` of its unit, and keys of pictures that cannot be decoded (normally none)."""

    folder: Path
    sha256: str  # of its tar
    samples: int
    undecodable: list[str]
    computed: bool


def build(task: ShardTask) -> BuiltShard:
    """The shard of a task, found in the work cache or computed.

    Raises:
        InputError: a file of a source changed since it was listed.
    """
    identity = [
        [sample.key, [read_row(pair.folder, pair.row)["digest"] for pair in sample.pairs], sorted(sample.without)]
        for sample in task.samples
    ]
    unit = task.work.get({"unit": "shard", "samples": identity}, lambda folder: _write(task, folder))
    return BuiltShard(unit.folder, unit.sha256[SHARD], len(task.samples), sorted(unit.record.failures), unit.computed)


def _write(task: ShardTask, folder: Path) -> UnitRecord:
    rows: list[dict[str, Any]] = []

    def samples() -> Iterator[Sample]:
        for sample in task.samples:
            built = _sample(sample)
            captions: dict[str, list[str]] = built.meta["captions"]
            texts = [text for some in captions.values() for text in some]
            row = {name: built.meta[name] for name in ("width", "height", "sha256")}
            row |= {"key": built.key, "captions": len(texts), "primary": primary_language(captions)}
            rows.append(row | {"texts": [text_id(same_text(text)) for text in texts]})
            yield built

    places = write_shard(folder / SHARD, samples())
    for row, (offset, size) in zip(rows, places, strict=True):
        row |= {"offset": offset, "size": size}
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / ROWS, compression="zstd")
    return UnitRecord(counts={"samples": len(rows)}, failures=_undecodable(folder / SHARD, rows))


def _sample(task: SampleTask) -> Sample:
    rows = [read_row(pair.folder, pair.row) for pair in task.pairs]
    metas = [json.loads(row["meta"]) for row in rows]
    left_out = set(task.without)
    captions: dict[str, dict[str, None]] = {}
    for meta in metas:
        for language, texts in meta["captions"].items():
            kept = [text for text in texts if text_id(same_text(text)) not in left_out]
            captions.setdefault(language, {}).update(dict.fromkeys(kept))
    meta = metas[0] | {"captions": {language: list(texts) for language, texts in captions.items() if texts}}
    return Sample(task.key, read_jpeg(task.pairs[0].folder, task.pairs[0].pictures, rows[0]), meta)


def _undecodable(shard: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    failures: dict[str, str] = {}
    with shard.open("rb") as file:
        for row in rows:
            file.seek(row["offset"])
            try:
                with Image.open(io.BytesIO(file.read(row["size"])), formats=["JPEG"]) as picture:
                    picture.load()
                    if (picture.size, picture.mode) != ((row["width"], row["height"]), "RGB"):
                        failures[row["key"]] = "not an RGB picture of the size that the index has"
            except (OSError, SyntaxError, ValueError) as error:
                failures[row["key"]] = str(error)
    return failures
