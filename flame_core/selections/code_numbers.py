"""Pictures as the numbers of their codes, place by place, as the released code of TL;DR clusters them: to compare with.

Two pictures are near each other only if they have the same codes at the same places, and how far others are apart
depends on how the codes happen to be numbered. `histograms.py` has neither fault. The released code also whitens these
numbers, which makes them worse on planted topics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flame_core.clustering.sources import GRID
from flame_core.data.shards import Index
from flame_core.selections.histograms import Histograms


class CodeNumbers(Histograms):
    """The numbers of the training pictures' codes over K, by shard and row; D is the number of patches."""

    def __init__(self, folder: Path, count: int, index: Index, sha256: Mapping[str, str]) -> None:
        """As `Histograms`.

        Raises:
            InputError: a shard's codes are of other keys than the index has.
        """
        super().__init__(folder, count, index, sha256)
        self.dims = self.codes(next(iter(self._parts))).shape[1]
        self.order = np.arange(self.dims)

    def sort(self) -> None:
        """Places have an order of their own."""

    def identity(self, shard: str) -> dict[str, object]:
        return {**super().identity(shard), "descriptor": "code_numbers"}

    def read(self, shard: str, rows: Sequence[int]) -> np.ndarray:
        return np.rint(self.codes(shard)[list(rows)] * (GRID / self._count))
