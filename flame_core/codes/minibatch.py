"""Mini-batch spherical k-means on whole numbers, so that threads and the order of additions change no byte.

Each step takes the next tokens of a seeded order, gives each to its most similar code (`clustering.spherical.nearest`),
and moves the codes to the directions of decaying sums of their tokens:

    S_k <- round(0.9 S_k) + sum of the batch's tokens of code k,    code k = direction of S_k

All sums are whole numbers below 2^53, so they are exact. A code that has had almost no token lately takes one of those
tokens of the batch that are least similar to their codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flame_core.clustering.spherical import first_centroids, nearest, on_sphere

FEWEST_TOKENS = 16  # patches of a picture that a codebook is fitted to, if it has so many
_DECAY = 0.9
_LATELY = 0.5  # decayed number of tokens below which a code is moved


@dataclass(frozen=True)
class Fit:
    """The state of a fit: codes [K, E] times `UNIT` in int16, decayed sums [K, E] and counts [K] in float64."""

    codes: np.ndarray
    sums: np.ndarray
    counts: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, to be stored."""
        return dict(vars(self))


def drawn_from(samples: int, patches: int, most: int, least: int = FEWEST_TOKENS) -> tuple[int, int]:
    """How many pictures at most give tokens, and how many each: `most` in all, but `least` of a picture if it can."""
    each = min(patches, max(least, most // samples))
    return max(1, most // each), each


def first_fit(tokens: np.ndarray, codes: int, seed: int) -> Fit:
    """K of the tokens [n, E] (int16, times `UNIT`), far from one another."""
    chosen = first_centroids(tokens, codes, seed)
    return Fit(chosen, np.zeros(chosen.shape), np.zeros(codes))


def next_fit(fit: Fit, batch: np.ndarray) -> Fit:
    """The state after one more batch of tokens [b, E]."""
    count = len(fit.codes)
    labels, best = nearest(batch, fit.codes)
    own = np.stack([np.bincount(labels, batch[:, e], count) for e in range(batch.shape[1])], axis=1)
    sums = np.rint(_DECAY * fit.sums) + own
    counts = _DECAY * fit.counts + np.bincount(labels, minlength=count)
    unused = np.flatnonzero(counts < _LATELY)
    far = np.argsort(best, kind="stable")[: len(unused)]
    sums[unused[: len(far)]] = batch[far]
    counts[unused[: len(far)]] = 1.0
    moved = on_sphere(sums)
    codes = np.where(moved.any(axis=1, keepdims=True), moved, fit.codes).astype(np.int16)
    return Fit(codes, sums, counts)


@dataclass(frozen=True)
class Batches:
    """The tokens of each step: `size` of a seeded order of all `total`, which is gone through in circles."""

    total: int
    size: int
    seed: int

    def rows(self, step: int) -> np.ndarray:
        """The tokens of a step, in ascending order."""
        size = min(self.size, self.total)
        return np.sort(self._order[np.arange(step * size, (step + 1) * size) % self.total])

    @cached_property
    def _order(self) -> np.ndarray:
        return np.random.default_rng(self.seed).permutation(self.total)
