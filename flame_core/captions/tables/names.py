"""Finds the samples that rows of a table are about, by what the rows call them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flame_core.data.addresses.attempts import address_key
from flame_core.data.captions_text import text_id
from flame_core.data.shards import Index
from flame_core.data.sources.keys import safe_key, stem_of
from flame_core.data.sources.listing_writer import plain
from flame_core.params import Source, TableCaptioner
from flame_core.params.captions import NAMING_SOURCES


class SampleNames:
    """What tables may call the samples of an index, sorted by a hash of 64 bits."""

    def __init__(self, index: Index, params: TableCaptioner, sources: Mapping[str, Source]) -> None:
        self._match = params.match
        kinds = NAMING_SOURCES.get(params.match, ())
        self._sources = sorted(name for name, each in sources.items() if each.kind in kinds)
        column = "sha256" if params.match == "sha256" else "key"
        batches = index.table.select([column]).to_batches(max_chunksize=4096)
        names = (text_id(name) for batch in batches for name in batch.column(0).to_pylist())
        ids = np.fromiter(names, np.uint64, len(index))
        self._names = index.table.column(column).cast(pa.large_string())  # 2 GB of keys need offsets of 64 bits
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]

    def places(self, names: Sequence[str]) -> Iterator[NDArray[np.int64]]:
        """The numbers of the samples in the index [N], -1 where there is none; once per source that has such names."""
        names = [plain(name).strip() for name in names]
        if self._match == "key":
            yield self._found(names)
        if self._match == "sha256":
            yield self._found([name.lower() for name in names])
        for source in self._sources:
            if self._match == "url":
                yield self._found_in(source, map(address_key, names))
            else:  # `a.b` may be a name without a suffix
                whole = self._found_in(source, (PurePosixPath(name).as_posix() for name in names))
                yield np.where(whole >= 0, whole, self._found_in(source, map(stem_of, names)))

    def _found_in(self, source: str, names: Iterable[str]) -> NDArray[np.int64]:
        return self._found([safe_key(f"{source}/{safe_key(name)}") for name in names])

    def _found(self, names: Sequence[str]) -> NDArray[np.int64]:
        if not len(self._ids):
            return np.full(len(names), -1)
        ids = np.fromiter(map(text_id, names), np.uint64, len(names))
        places = self._order[np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)]
        there = self._names.take(pa.array(places)).to_pylist()
        same = [a == b for a, b in zip(there, names, strict=True)]  # another sample may have the next hash
        return np.where(same, places, -1)
