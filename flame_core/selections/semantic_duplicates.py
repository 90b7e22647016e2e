"""Semantic duplicates within a cluster: SemDeDup (Abbas et al., arXiv 2303.09540, section 3 and its released code).

The samples of a cluster are sorted by their similarity to the centroid, the one to keep first. A sample is removed if
its cosine with any earlier one, kept or removed, exceeds the threshold. So of a chain a ~ b ~ c only the first is kept,
even if a and c differ more: the paper's rule, and the reason why the threshold should be high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.clustering.sources import lengths

_BLOCK = 2**22  # cosines at once: 32 MB


@dataclass(frozen=True)
class Compared:
    """For each of n samples, its largest cosine with an earlier one (-1: it is the first), and which one that is."""

    cosine: np.ndarray
    twin: np.ndarray


def keeping_order(to_centroid: np.ndarray, keys: Sequence[str], *, farthest: bool) -> np.ndarray:
    """The order [n] of a cluster's samples, the one to keep first; equal similarities are ordered by key."""
    by_key = np.argsort(np.argsort(np.array(keys)))
    return np.lexsort((by_key, to_centroid if farthest else -to_centroid))


def compare(vectors: np.ndarray) -> Compared:
    """Compare each row of vectors [n, D] with all rows above it; zero vectors resemble nothing.

    Whole numbers up to 2^14 give cosines that do not depend on the order of additions.
    """
    n = len(vectors)
    cosine, twin = np.full(n, -1.0), np.full(n, -1, np.int64)
    length = lengths(vectors)[:, 0]
    length[length == 0] = np.inf
    size = max(1, _BLOCK // max(n, 1))
    for start in range(0, n, size):
        stop = min(start + size, n)
        products = vectors[start:stop] @ vectors[:stop].T
        products /= length[start:stop, None] * length[None, :stop]
        earlier = np.arange(stop)[None, :] < np.arange(start, stop)[:, None]
        products[~earlier] = -1.0
        best = products.argmax(axis=1)
        cosine[start:stop] = products[np.arange(stop - start), best]
        twin[start:stop] = np.where(cosine[start:stop] > -1.0, best, -1)
    return Compared(cosine, twin)
