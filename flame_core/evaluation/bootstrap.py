"""Percentile bootstrap intervals, drawing pictures.

A picture is drawn together with everything that was asked about it: its own query, the texts that describe it, in
every language. Queries about one picture are not independent, so drawing them one by one would give intervals that
are too narrow. A draw is a vector of counts per picture, and a metric over a draw is a ratio of two weighted sums;
all metrics of a run are columns of one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import sparray

from flame_core.params import BootstrapParams

_BLOCK_COUNTS = 4_000_000  # picture counts that are held at once


class Bootstrap:
    """Draws of the pictures of a split; every call uses the same draws, so metrics can be compared draw by draw."""

    def __init__(self, pictures: int, params: BootstrapParams) -> None:
        self.pictures = pictures
        self.params = params

    def _draws(self) -> Iterator[np.ndarray]:
        """Blocks [B, pictures] of how often each picture was drawn."""
        rng = np.random.default_rng(self.params.seed)
        block = max(1, _BLOCK_COUNTS // max(1, self.pictures))
        for first in range(0, self.params.samples, block):
            rows = min(block, self.params.samples - first)
            drawn = rng.integers(self.pictures, size=(rows, self.pictures))
            drawn += np.arange(rows)[:, None] * self.pictures
            counts = np.bincount(drawn.ravel(), minlength=rows * self.pictures)
            yield counts.reshape(rows, self.pictures).astype(np.float64)

    def means(self, sums: np.ndarray | sparray, counts: np.ndarray | sparray) -> np.ndarray:
        """Means over the drawn pictures.

        Args:
            sums: [pictures, C] sum of a metric's values over the queries of a picture, dense or sparse.
            counts: [pictures, C] number of those queries; 0 where the picture has none.

        Returns:
            [samples, C]; NaN where a draw has no query of a column.
        """
        blocks = []
        for weights in self._draws():
            with np.errstate(invalid="ignore"):
                blocks.append((weights @ sums) / (weights @ counts))
        return np.concatenate(blocks)

    def interval(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) percentiles [C] of `means` [samples, C], without the draws that are NaN.

        A column that no draw has a query of is known no better than to lie between 0 and 1.
        """
        tail = (1.0 - self.params.confidence) / 2.0
        unknown = np.isnan(draws).all(axis=0)
        low, high = np.nanquantile(np.where(unknown, 0.0, draws), [tail, 1.0 - tail], axis=0)
        return low, np.where(unknown, 1.0, high)


def by_picture(values: np.ndarray, owners: np.ndarray, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts [pictures] of the queries' values [Q], by the picture that each query belongs to [Q]."""
    sums = np.bincount(owners, weights=values, minlength=pictures)
    return sums, np.bincount(owners, minlength=pictures).astype(np.float64)
