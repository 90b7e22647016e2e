"""Texts of samples in the order of the shards, from texts in any order and more of them than fit into memory.

They are divided among files by ranges of samples, and each of these is sorted by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.shards import Index
from flame_core.digest import canonical_json
from flame_core.files.row_groups import in_groups

_PART = pa.schema({"place": pa.int64(), "text": pa.large_string()})  # a range may have more than 2 GB of texts
_TEXTS = pa.schema({"key": pa.large_string(), "text": pa.large_string()})
_RANGE = 1 << 18  # samples whose texts are sorted at once
_FILES = 256  # at most, that are open at once
_ROWS = 4096  # per row group

Rows = tuple[int, int, str]  # of a shard: the first, the one after the last, and the sha256 of their keys and texts


class SortedTexts:
    """Takes texts of samples; keeps its files in `folder` until it ends.

    The texts of a sample stay in their order, each once. `index` has its rows in the order of the shards.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self._index = index
        self._range = max(_RANGE, -(-len(index) // _FILES))
        self._paths = [folder / f"part-{number}" for number in range(-(-len(index) // self._range))]
        self._waiting: list[list[tuple[int, str]]] = [[] for _ in self._paths]
        self._has = np.zeros(len(index), bool)
        self._added = 0
        self.repeated = 0  # texts that their sample had, known after `write`
        self._open = ExitStack()

    def __enter__(self) -> SortedTexts:
        self._writers = [self._open.enter_context(pq.ParquetWriter(path, _PART)) for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    @property
    def samples(self) -> int:
        """How many samples have a text."""
        return int(np.count_nonzero(self._has))

    def add(self, place: int, text: str) -> None:
        """Take a text of a sample, by its number in the index."""
        self._has[place] = True
        self._added += 1
        number = place // self._range
        self._waiting[number].append((place, text))
        if len(self._waiting[number]) == _ROWS:
            self._flush(number)

    def _flush(self, number: int) -> None:
        rows = [{"place": place, "text": text} for place, text in self._waiting[number]]
        self._writers[number].write_table(pa.Table.from_pylist(rows, schema=_PART))
        self._waiting[number] = []

    def write(self, path: Path) -> dict[str, Rows]:
        """Write all texts, a row each with its key; returns the rows of each shard."""
        for number in range(len(self._paths)):
            self._flush(number)
        self._open.close()
        spans = self._index.spans()
        first = np.array([span.start for span in spans.values()])
        counts = np.zeros(len(spans), np.int64)
        digests = [hashlib.sha256() for _ in spans]

        def texts() -> Iterator[pa.Table]:
            keys = self._index.table.column("key").cast(pa.large_string())
            for part in self._paths:
                table = pq.ParquetFile(part).read().sort_by("place")  # a stable sort
                for some in _each_once(table):
                    places = some.column("place")
                    found = pa.table([keys.take(places), some.column("text")], schema=_TEXTS)
                    shards = np.searchsorted(first, places.to_numpy(), "right") - 1
                    np.add.at(counts, shards, 1)
                    for shard, row in zip(shards.tolist(), found.to_pylist(), strict=True):
                        digests[shard].update(canonical_json(row).encode())
                    yield found
            self.repeated = self._added - int(counts.sum())

        with pq.ParquetWriter(path, _TEXTS, compression="zstd") as writer:
            for group in in_groups(texts(), _ROWS):
                writer.write_table(group)
        stops = np.cumsum(counts).tolist()
        starts = [0, *stops[:-1]]
        return {
            shard: (start, stop, digest.hexdigest())
            for shard, start, stop, digest in zip(spans, starts, stops, digests, strict=True)
        }


def _each_once(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of a sorted table, some at a time, without texts that their sample has already."""
    last, seen = -1, set[str]()
    for batch in table.to_batches(max_chunksize=_ROWS):
        kept = []
        for place, text in zip(batch.column("place").to_pylist(), batch.column("text").to_pylist(), strict=True):
            if place != last:
                last, seen = place, set()
            kept.append(text not in seen)
            seen.add(text)
        yield pa.Table.from_batches([batch]).filter(pa.array(kept, pa.bool_()))
