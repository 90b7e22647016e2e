"""Pictures as histograms of their patches' codes: h_k = sqrt(patches with code k / L), a unit vector (Hellinger).

The cosine of two of them says how much two pictures share, whatever the layout. To be clustered they are rounded to the
grid of `clustering/sources.py`.

Nothing may depend on how codes are numbered, to the last byte. So the dimensions are sorted by a fingerprint of what a
code counts in which picture: sum of count times a hash of the picture's key, modulo 2^64. It is the same for every
numbering, and equal only for codes that count the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flame_core.clustering.sources import GRID
from flame_core.codes.code_files import Coded, code_file, read_codes
from flame_core.data.shards import Index
from flame_core.digest import bytes_sha256
from flame_core.errors import InputError
from flame_core.selections.picking import hash_numbers


def histograms(codes: np.ndarray, count: int) -> np.ndarray:
    """Histograms times `GRID`, rounded, [n, K] in float64, of codes [n, L] below K = `count`."""
    n, patches = codes.shape
    flat = (np.arange(n)[:, None] * count + codes.astype(np.int64)).ravel()
    counts = np.bincount(flat, minlength=n * count).reshape(n, count)
    return np.rint(np.sqrt(counts / patches) * GRID)


def numbering_free(files: Iterable[Coded], count: int) -> np.ndarray:
    """The codes [K] in an order that no numbering changes."""
    marks = np.zeros(count, np.uint64)
    for coded in files:
        numbers = hash_numbers(coded.keys, "code")
        np.add.at(marks, coded.codes.ravel(), np.repeat(numbers, coded.codes.shape[1]))  # wraps round: exact
    return np.argsort(marks, kind="stable")


class Histograms:
    """The histograms of the training pictures, by shard and row; a `VectorSource` of `clustering`."""

    name = "codes"

    def __init__(self, folder: Path, count: int, index: Index, sha256: Mapping[str, str]) -> None:
        """Open the codes in a folder, which are found by key.

        Args:
            folder: that `flame codes` made.
            count: of the codes, K.
            index: all rows of the training split.
            sha256: of the folder's files by name.

        Raises:
            InputError: a shard's codes are of other keys than the index has.
        """
        self.dims = self._count = count
        self._folder, self._sha256 = folder, sha256
        self._parts = index.in_order().by_shard()
        self._last: tuple[str, np.ndarray] | None = None
        self.order = np.arange(count)

    def sort(self) -> None:
        """Put the dimensions into an order that no numbering of the codes changes; reads all codes."""
        self.order = numbering_free((self._coded(shard) for shard in self._parts), self._count)

    def identity(self, shard: str) -> dict[str, object]:
        order = bytes_sha256(self.order.astype("<i8").tobytes())
        return {"sha256": self._sha256[code_file(shard)], "codes": self._count, "order": order}

    def read(self, shard: str, rows: Sequence[int]) -> np.ndarray:
        return histograms(self.codes(shard)[list(rows)], self._count)[:, self.order]

    def codes(self, shard: str) -> np.ndarray:
        """The codes of a shard's pictures in the index's order, [n, L]."""
        if self._last is None or self._last[0] != shard:
            self._last = (shard, self._coded(shard).codes)
        return self._last[1]

    def _coded(self, shard: str) -> Coded:
        path = self._folder / code_file(shard)
        found, keys = read_codes(path), list(self._parts[shard].keys())
        if found.keys != keys:
            places = {key: place for place, key in enumerate(found.keys)}
            if missing := next((key for key in keys if key not in places), None):
                raise InputError(f"{path}: no codes of the training sample {missing}; run `flame codes` again")
            at = [places[key] for key in keys]
            found = Coded(keys, found.codes[at], found.cosine[at])
        if found.codes.size and int(found.codes.max()) >= self._count:
            raise InputError(
                f"{path}: a code is {found.codes.max()}, and there are {self._count}; run `flame codes` again"
            )
        return found
