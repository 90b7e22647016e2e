"""Finds the samples that rows of a table are about, by what the rows call them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flame_core.captions.tables.rows import Match, pair_name
from flame_core.data.addresses.attempts import address_key
from flame_core.data.buckets.bucket import is_address
from flame_core.data.captions_text import text_id
from flame_core.data.picture_kinds import is_picture
from flame_core.data.shards import Index
from flame_core.data.sources.file_names import roots_of, spellings
from flame_core.data.sources.keys import safe_key, stem_of
from flame_core.data.sources.listing_writer import plain
from flame_core.layout import Layout
from flame_core.params import Source
from flame_core.params.captions import NAMING_SOURCES


class SampleNames:
    """What tables may call the samples of an index, sorted by a hash of 64 bits."""

    def __init__(self, index: Index, match: Match, sources: Mapping[str, Source], layout: Layout) -> None:
        self._match = match
        kinds = NAMING_SOURCES.get(match, ())
        own = {name: source for name, source in sorted(sources.items()) if source.kind in kinds}
        self._roots = {name: _roots(source, layout) for name, source in own.items()}
        columns = {"sha256": ["sha256"], "pair": ["key", "sha256"]}.get(match, ["key"])
        self._columns = [index.table.column(each).cast(pa.large_string()) for each in columns]  # for more than 2 GB
        batches = index.table.select(columns).to_batches(max_chunksize=4096)
        ids = np.fromiter((text_id(name) for batch in batches for name in _named(batch.columns)), np.uint64, len(index))
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]

    def places(self, names: Sequence[str], source: str | None) -> Iterator[NDArray[np.int64]]:
        """The numbers of the samples in the index [N], -1 where there is none, of the rows of a table.

        `source` is the one that the table is about. An address may be listed by several, each of which has a sample.
        """
        match self._match:
            case "pair":
                yield self._found(names)
            case "key":
                yield self._found([plain(name).strip() for name in names])
            case "sha256":
                yield self._found([plain(name).strip().lower() for name in names])
            case "url":
                for own in self._roots if source is None else (source,):
                    yield self._found(_keys(own, (address_key(plain(name).strip()) for name in names)))
            case "image":
                for own in self._roots if source is None else (source,):
                    yield self._files(own, [plain(name) for name in names])

    def _files(self, source: str, names: Sequence[str]) -> NDArray[np.int64]:
        """By the names of files, in the first spelling that is there."""
        found = np.full(len(names), -1)
        left = [(row, iter(_stems(name, self._roots[source]))) for row, name in enumerate(names)]
        while left:
            tried = [(row, stem, others) for row, others in left if (stem := next(others, None)) is not None]
            rows = np.array([row for row, _, _ in tried], np.int64)
            found[rows] = self._found(_keys(source, (stem for _, stem, _ in tried)))
            left = [(row, others) for row, _, others in tried if found[row] < 0]
        return found

    def _found(self, names: Sequence[str]) -> NDArray[np.int64]:
        if not len(self._ids):
            return np.full(len(names), -1)
        ids = np.fromiter(map(text_id, names), np.uint64, len(names))
        places = self._order[np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)]
        taken = pa.array(places, pa.int64())
        there = _named([column.take(taken) for column in self._columns])
        same = [a == b for a, b in zip(there, names, strict=True)]  # another sample may have the next hash
        return np.where(same, places, -1)


def _named(columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[str]:
    """The names of samples, from the one column that has them, or from keys and digests."""
    values = [column.to_pylist() for column in columns]
    return values[0] if len(values) == 1 else list(map(pair_name, *values))


def _roots(source: Source, layout: Layout) -> list[str]:
    """The absolute paths of the folder to which a source's files are relative; none of one that is elsewhere."""
    path = getattr(source, "path", None)
    return [] if path is None or is_address(path) else roots_of(layout.resolve(path))


def _keys(source: str, names: Iterable[str]) -> list[str]:
    return [safe_key(f"{source}/{safe_key(name)}") for name in names]


def _stems(name: str, roots: Sequence[str]) -> Iterator[str]:
    """A file's name without the suffix of a picture, in each spelling that it may have on a disk, each once."""
    stems = (stem_of(each) if is_picture(each) else each for each in spellings(name, roots))
    yield from dict.fromkeys(unicodedata.normalize(form, stem) if form else stem for stem in stems for form in _FORMS)


_FORMS = ("", "NFC", "NFD")
