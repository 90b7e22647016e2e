"""How a score per concept follows from its frequency: correlations, a slope per decade, and how sure they are.

A point is a concept of a test set. Test sets differ in difficulty and in the frequency of their concepts, which alone
makes a correlation, so `r_within` and `slope` compare concepts within a test set: all values are taken relative to the
mean of their set (fixed effects). Concepts that occur in several sets are one draw of the bootstrap, since their counts
are the same. Points of frequency 0 have no logarithm; their mean score stands apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flame_core.concepts.paper_binned import CLASSES, PaperBinned, correlation, paper_binned
from flame_core.errors import InputError


@dataclass(frozen=True)
class Points:
    """N concepts of test sets.

    Attributes:
        concept: names.
        test_set: names.
        frequency: samples of the training data that have the concept.
        score: in per cent.
        weight: test pictures behind each score.
    """

    concept: list[str]
    test_set: list[str]
    frequency: np.ndarray
    score: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.concept)


@dataclass(frozen=True)
class Fit:
    """The statistics of N points; None where they are not defined.

    Attributes:
        points, zero: numbers of points, and of those with frequency 0.
        zero_mean: mean score of the latter.
        r, spearman: of score and log10 f, per concept, f > 0.
        r_within: r after each test set's means are subtracted.
        r_zeros, r_within_zeros: the same with the zeros at log10 max(f, 1), as analyses that keep them have it.
        slope_raw: points per decade of f, pooled.
        slope: points per decade within test sets.
        slope_weighted: the same, each concept weighted by its test pictures.
        slope_low, slope_high, r_low, r_high: interval of `slope` and `r` by a bootstrap clustered by concept.
        p: of `r`, the share of permutations of the scores with as large an |r|.
        p_within: of `slope`, by permutations within test sets.
        binned: the paper's correlation.
        binned_null: 95th percentile of its |r| over the same permutations.
    """

    points: int
    zero: int
    zero_mean: float | None
    r: float | None
    spearman: float | None
    r_within: float | None
    r_zeros: float | None
    r_within_zeros: float | None
    slope_raw: float | None
    slope: float | None
    slope_weighted: float | None
    slope_low: float | None
    slope_high: float | None
    r_low: float | None
    r_high: float | None
    p: float | None
    p_within: float | None
    binned: PaperBinned
    binned_null: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON, with numbers rounded to eight digits."""
        return _rounded(asdict(self))


def fit(
    points: Points,
    resamples: int,
    permutations: int,
    seed: int,
    confidence: float = 0.95,
    bins: int = CLASSES,
    trim: tuple[int, int] = (1, 1),
) -> Fit:
    """All statistics of some points; equal points and seeds give equal numbers.

    Raises:
        InputError: there is no point.
    """
    if not len(points):
        raise InputError("concept_fit: no concept is both counted and measured")
    seen = points.frequency > 0
    sets = np.unique(points.test_set, return_inverse=True)[1]
    x_all, y_all = np.log10(np.maximum(points.frequency, 1)), points.score.astype(np.float64)
    x, y, of_set = x_all[seen], y_all[seen], sets[seen]
    within = _within(x, of_set), _within(y, of_set)
    raw, r = slope_of(x, y), correlation(x, y)
    slope, r_within = slope_of(*within), correlation(*within)
    weighted = _weighted_slope(x, y, of_set, points.weight[seen].astype(np.float64)) if slope is not None else None
    clusters = np.unique(np.array(points.concept, dtype=object)[seen].astype(str), return_inverse=True)[1]
    low_high = _bootstrap(x, y, of_set, clusters, resamples, seed, confidence) if slope is not None else [None] * 4
    p, p_within, null = _permuted(points, x, y, of_set, seen, r, slope, permutations, seed, bins, trim)
    return Fit(
        points=len(points),
        zero=int((~seen).sum()),
        zero_mean=None if seen.all() else float(y_all[~seen].mean()),
        r=r,
        spearman=_spearman(x, y),
        r_within=r_within,
        r_zeros=correlation(x_all, y_all),
        r_within_zeros=correlation(_within(x_all, sets), _within(y_all, sets)),
        slope_raw=raw,
        slope=slope,
        slope_weighted=weighted,
        slope_low=low_high[0],
        slope_high=low_high[1],
        r_low=low_high[2],
        r_high=low_high[3],
        p=p,
        p_within=p_within,
        binned=paper_binned(points.frequency, y_all, bins, trim),
        binned_null=null,
    )


def slope_of(x: np.ndarray, y: np.ndarray) -> float | None:
    """The slope of a line through points by least squares; None of fewer than three or if x is constant."""
    if len(x) < 3 or np.ptp(x) < 1e-12:
        return None
    x = x - x.mean()
    return float(x @ (y - y.mean()) / (x @ x))


def _within(values: np.ndarray, sets: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Values relative to the (weighted) mean of their set."""
    weight = np.ones(len(values)) if weight is None else weight
    total = np.bincount(sets, weight)
    means = np.bincount(sets, weight * values) / np.where(total > 0, total, 1)
    return values - means[sets] if len(values) else values


def _weighted_slope(x: np.ndarray, y: np.ndarray, sets: np.ndarray, weight: np.ndarray) -> float | None:
    x, y = _within(x, sets, weight), _within(y, sets, weight)
    spread = float((weight * x) @ x)
    return float((weight * x) @ y / spread) if spread > 1e-12 else None


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    from scipy.stats import rankdata

    return correlation(rankdata(x), rankdata(y))


def _bootstrap(
    x: np.ndarray, y: np.ndarray, sets: np.ndarray, clusters: np.ndarray, resamples: int, seed: int, confidence: float
) -> list[float | None]:
    """[low and high of the slope within sets, low and high of r]: percentiles over resampled concepts."""
    draw = np.random.default_rng([seed, 1])
    count = int(clusters.max()) + 1
    slopes: list[float] = []
    correlations: list[float] = []
    for _ in range(resamples):
        weight = np.bincount(draw.integers(count, size=count), minlength=count)[clusters].astype(np.float64)
        slope = _weighted_slope(x, y, sets, weight)
        a, b = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
        spread = float(((weight * a) @ a) * ((weight * b) @ b))
        if slope is not None and spread > 0:
            slopes.append(slope)
            correlations.append(float((weight * a) @ b / np.sqrt(spread)))
    if not slopes:
        return [None] * 4
    ends = [50 * (1 - confidence), 50 * (1 + confidence)]
    return [float(each) for values in (slopes, correlations) for each in np.percentile(values, ends)]


def _permuted(
    points: Points,
    x: np.ndarray,
    y: np.ndarray,
    sets: np.ndarray,
    seen: np.ndarray,
    r: float | None,
    slope: float | None,
    permutations: int,
    seed: int,
    bins: int,
    trim: tuple[int, int],
) -> tuple[float | None, float | None, float | None]:
    """(p of r, p of the slope within sets, 95th percentile of the binned |r|) under shuffled scores."""
    if r is None or slope is None:
        return None, None, None
    draw = np.random.default_rng([seed, 2])
    inside = _within(x, sets)
    above = above_within = 0
    null: list[float] = []
    every = np.arange(len(points))
    for _ in range(permutations):
        order = draw.permutation(every)
        shuffled = points.score[order].astype(np.float64)
        above += abs(correlation(x, shuffled[seen]) or 0.0) >= abs(r) - 1e-12
        own = y[np.lexsort((draw.random(len(y)), sets))]
        by_set = np.empty_like(y)
        by_set[np.argsort(sets, kind="stable")] = own
        above_within += abs(slope_of(inside, by_set) or 0.0) >= abs(slope) - 1e-12
        binned = paper_binned(points.frequency, shuffled, bins, trim).r
        null += [] if binned is None else [abs(binned)]
    return (
        (1 + above) / (1 + permutations),
        (1 + above_within) / (1 + permutations),
        float(np.percentile(null, 95)) if null else None,
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
