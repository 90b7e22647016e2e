"""The correlation that "No Zero-Shot Without Exponential Data" (arXiv 2404.04125) reports, by its code.

Points are pooled; x = ln max(f, 1); n edges from min to max; a point belongs to the first edge that is not below it, so
the first bin holds the zeros and ones. The edges of a slice of bins are correlated with the mean scores in them. The
slice was chosen by hand: [1:-1] for CC3M, CC12M and YFCC15M, [2:-1] for LAION-400M.

It is kept so that published figures can be replayed. It overstates the effect: a mean over a bin hides the spread in
it, and of nine means the correlation of shuffled scores reaches 0.7. `frequency_fit.py` has the sounder statistics. The
released code fails if a bin is empty; here such a bin has no mean and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES, RETRIEVAL = 12, 7  # bins


@dataclass(frozen=True)
class PaperBinned:
    """The binned correlation.

    Attributes:
        r: over the slice; None if fewer than three bins have points.
        p: two-sided, of the t test; as the paper reports it, too small.
        r_all: over all bins.
        edges: [n], as counts.
        means: [n] mean score per bin; None of an empty one.
        sizes: [n] points per bin.
    """

    r: float | None
    p: float | None
    r_all: float | None
    edges: list[float]
    means: list[float | None]
    sizes: list[int]


def paper_binned(
    frequency: np.ndarray, score: np.ndarray, bins: int = CLASSES, trim: tuple[int, int] = (1, 1)
) -> PaperBinned:
    """The binned correlation of N points; `trim` bins at the two ends are left out of the slice."""
    x = np.log(np.maximum(frequency, 1))
    edges = np.linspace(x.min(), x.max(), bins)
    place = np.digitize(x, edges, right=True)
    sizes = np.bincount(place, minlength=bins)
    means = np.full(bins, np.nan)
    filled = sizes > 0
    means[filled] = np.bincount(place, score, bins)[filled] / sizes[filled]
    chosen = slice(trim[0], bins - trim[1])
    r = correlation(edges[chosen][filled[chosen]], means[chosen][filled[chosen]])
    return PaperBinned(
        r,
        None if r is None else t_test(r, int(filled[chosen].sum())),
        correlation(edges[filled], means[filled]),
        np.exp(edges).tolist(),
        [None if np.isnan(mean) else float(mean) for mean in means],
        sizes.tolist(),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's r; None of fewer than three points or if one side is constant."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def t_test(r: float, count: int) -> float:
    """Two-sided p of a correlation of `count` independent points."""
    from scipy.stats import t

    if abs(r) >= 1:
        return 0.0
    return float(2 * t.sf(abs(r) * np.sqrt((count - 2) / (1 - r * r)), count - 2))
