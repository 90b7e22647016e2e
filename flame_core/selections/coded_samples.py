"""The samples that selections are made from, with their codes, in the order of shards and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flame_core.codes.codebook import Codebook
from flame_core.data.shards import Index, IndexRow
from flame_core.layout import Layout
from flame_core.selections.code_numbers import CodeNumbers
from flame_core.selections.histograms import Histograms
from flame_core.selections.selecting import Selected
from flame_core.verification import read_digests


@dataclass(frozen=True)
class Samples:
    """The samples that are selected from, in the order of shards and rows."""

    layout: Layout
    index: Index
    book: Codebook
    language: str
    descriptor: str = "histogram"

    @cached_property
    def rows(self) -> Index:
        """The row of every sample."""
        return self.index.in_order()

    @cached_property
    def keys(self) -> list[str]:
        return list(self.rows.keys())

    @cached_property
    def sizes(self) -> dict[str, int]:
        return dict(sorted(self.index.shard_sizes().items()))

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """By shard, the places of its samples among all."""
        ends = np.cumsum([0, *self.sizes.values()])
        return {shard: np.arange(start, end) for shard, start, end in zip(self.sizes, ends[:-1], ends[1:], strict=True)}

    @cached_property
    def source(self) -> Histograms:
        kind = CodeNumbers if self.descriptor == "code_numbers" else Histograms
        return kind(self.layout.codes, len(self.book), self.index, read_digests(self.layout.codes))

    @cached_property
    def codes(self) -> np.ndarray:
        """Patches by code, [K], of all samples."""
        return self.code_counts(np.arange(len(self.keys)))

    def code_counts(self, places: np.ndarray) -> np.ndarray:
        """Patches by code, [K], of some samples."""
        counts = np.zeros(len(self.book), np.int64)
        places = np.sort(places)
        starts = np.cumsum([0, *self.sizes.values()])
        for shard, start, own in zip(
            self.sizes, starts, np.split(places, np.searchsorted(places, starts[1:-1])), strict=False
        ):
            if len(own):
                counts += np.bincount(self.source.codes(shard)[own - start].ravel(), minlength=len(counts))
        return counts

    def keys_of(self, selected: Sequence[Selected]) -> dict[str, set[str]]:
        """{selection: its keys}."""
        return {each.name: {self.keys[place] for place in each.picked.places.tolist()} for each in selected}

    def index_rows(self, places: Sequence[int]) -> dict[int, IndexRow]:
        """The rows of the index of some samples."""
        return {place: self.rows[place] for place in places}
