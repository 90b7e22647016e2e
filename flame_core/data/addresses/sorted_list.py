"""A list of addresses, sorted by key with each address once: `addresses.parquet`.

The list may be larger than memory. Its rows are first divided among 64 files by the start of their key, and then each
file is sorted by itself. The captions of all rows with one address are kept; every other value is the first one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.files.row_groups import read_rows

ADDRESSES = "addresses.parquet"
_BUCKETS = 64
_ROWS = 1024  # per bucket in memory, and per row group
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "sha256": pa.string(),  # that the list gives
        "md5": pa.string(),
        "record": pa.string(),  # JSON list: of each row, its captions, licence and kept columns
    }
)


@dataclass(frozen=True)
class Address:
    """A row of `addresses.parquet`."""

    key: str
    url: str
    sha256: str | None
    md5: str | None
    record: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The values of all rows of the list with this address."""
        return json.loads(self.record)


@dataclass(frozen=True)
class SortedList:
    """How many rows have an address, and how many different addresses are kept and left out.

    `first_left_out` is the key of the first one.
    """

    listed: int
    kept: int
    left_out: int = 0
    first_left_out: str | None = None


def write_sorted(folder: Path, rows: Iterable[Address], most: int | None) -> SortedList:
    """Write `addresses.parquet` to `folder`, of the first `most` keys."""
    paths = [folder / f"bucket-{number:02d}" for number in range(_BUCKETS)]
    listed = _divide(paths, rows)
    kept = different = 0
    beyond: str | None = None
    with pq.ParquetWriter(folder / ADDRESSES, SCHEMA, compression="zstd") as writer:
        chunk: list[dict[str, Any]] = []
        for path in paths:
            if most is not None:
                different += len(pq.read_table(path, columns=["key"]).column(0).unique())
            for row in _merged(path):
                if most is not None and kept == most:
                    beyond = beyond or row["key"]
                    break
                kept += 1
                chunk.append(row)
                if len(chunk) == _ROWS:
                    writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
                    chunk = []
            path.unlink()
        if chunk:
            writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
    return SortedList(listed, kept, different - kept if beyond else 0, beyond)


def _divide(paths: list[Path], rows: Iterable[Address]) -> int:
    writers = [pq.ParquetWriter(path, SCHEMA, compression="lz4") for path in paths]
    waiting: list[list[dict[str, Any]]] = [[] for _ in paths]
    listed = 0
    try:
        for row in rows:
            listed += 1
            number = int(row.key[5:7], 16) * _BUCKETS >> 8  # of urls/<2 hex digits>/
            waiting[number].append(vars(row))
            if len(waiting[number]) == _ROWS:
                writers[number].write_table(pa.Table.from_pylist(waiting[number], schema=SCHEMA))
                waiting[number] = []
        for writer, left in zip(writers, waiting, strict=True):
            writer.write_table(pa.Table.from_pylist(left, schema=SCHEMA))
    finally:
        for writer in writers:
            writer.close()
    return listed


def _merged(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a bucket by key, those of equal keys as one, in the order of the list."""
    table = pq.ParquetFile(path).read()
    place = pa.array(range(len(table)), pa.int64())
    table = table.append_column("place", place).sort_by([("key", "ascending"), ("place", "ascending")])
    rows = (row for batch in table.to_batches(_ROWS) for row in batch.to_pylist())
    for _, same in groupby(rows, key=lambda row: row["key"]):
        first, *others = same
        del first["place"]
        if others:
            records = [record for row in (first, *others) for record in json.loads(row["record"])]
            first["record"] = json.dumps(records, ensure_ascii=False)
            for name in ("sha256", "md5"):
                first[name] = next((row[name] for row in (first, *others) if row[name]), None)
        yield first


def read_keys(folder: Path) -> Iterator[str]:
    """All keys, in order."""
    with pq.ParquetFile(folder / ADDRESSES) as file:
        for batch in file.iter_batches(columns=["key"]):
            yield from batch.column(0).to_pylist()


def read_addresses(folder: Path, start: int, stop: int) -> list[Address]:
    """The rows `start` to `stop` (not included)."""
    return [Address(**row) for row in read_rows(folder / ADDRESSES, start, stop).to_pylist()]
