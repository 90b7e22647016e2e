"""Intervals with guaranteed coverage for means over queries, and for the difference of two means.

An interval is that of Clopper and Pearson for `n` independent hits or misses. If every picture has one query, `n` is
their number, and the coverage is guaranteed even if hits are very rare. Queries about one picture are not independent,
and a mean over languages or classes is not a single proportion. Then `n` is the effective sample size p (1 - p) / v,
where v is the variance over the pictures (linearised); n is never more than the number of queries, and is reduced for
few pictures with Student's t: Korn and Graubard, "Confidence intervals for proportions with small expected number of
positive counts estimated from survey data" (Survey Methodology 24, 1998), the rule of the US National Center for Health
Statistics. If there are too few hits or misses to estimate the dependence of queries, each picture counts as one query.

The interval of a difference on the same pictures uses both intervals and the correlation over the pictures: Newcombe's
method 10 for paired proportions (Statistics in Medicine 17, 1998), with his correction of the correlation by half a
picture, as generalised by Zou and Donner (2008).

Nothing is random: the same numbers give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

_NOTHING = 1e-20  # below this, a variance is zero with rounding errors; one hit among 10^9 queries has more
_FEW = 10  # expected hits or misses below which the dependence of queries cannot be estimated


@dataclass(frozen=True)
class Mean:
    """A mean of values between 0 and 1 over the queries about N pictures.

    Attributes:
        value: the mean; NaN if there is no query.
        influence: [N] each picture's contribution to the deviation; the sum of their squares is the variance.
        weights: [N] each picture's share of the mean; they sum to 1.
        squares: sum over the queries of their squared weights.
        freedom: degrees of freedom of the variance.
        simple: whether there is at most one query per picture, all with the same weight.
    """

    value: float
    influence: np.ndarray
    weights: np.ndarray
    squares: float
    freedom: float
    simple: bool = False

    @property
    def variance(self) -> float:
        variance = float((self.influence**2).sum())
        return variance if variance > _NOTHING else 0.0


def by_picture(values: np.ndarray, owners: np.ndarray, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts [pictures] of the queries' values [Q], by the picture of each query [Q]."""
    sums = np.bincount(owners, weights=values, minlength=pictures)
    return sums, np.bincount(owners, minlength=pictures).astype(np.float64)


def ratio(sums: np.ndarray, counts: np.ndarray) -> Mean:
    """The mean over all queries, from each picture's sum of values and number of queries (or pixels) [N]."""
    total, pictures = float(counts.sum()), int(np.count_nonzero(counts))
    if not pictures:
        nothing = np.zeros(len(sums))
        return Mean(float("nan"), nothing, nothing, 1.0, 0)
    value = float(sums.sum()) / total
    inflation = sqrt(pictures / (pictures - 1)) if pictures > 1 else 1.0
    return Mean(
        value,
        (sums - value * counts) / total * inflation,
        counts / total,
        1 / total,
        pictures - 1,
        simple=bool((counts <= 1).all()),
    )


def among(mean: Mean, chosen: np.ndarray) -> Mean:
    """A mean over some pictures as one over all N of them, of which it is about those that are `chosen` [N]."""

    def wide(values: np.ndarray) -> np.ndarray:
        found = np.zeros(len(chosen))
        found[chosen] = values
        return found

    return replace(mean, influence=wide(mean.influence), weights=wide(mean.weights))


def mean_of(means: Sequence[Mean]) -> Mean:
    """The plain mean of means over the same N pictures (one per language, for example); empty means are left out."""
    known = [each for each in means if not np.isnan(each.value)]
    if len(known) < 2:
        return known[0] if known else means[0]
    weights = np.mean([each.weights for each in known], axis=0)
    return Mean(
        float(np.mean([each.value for each in known])),
        np.mean([each.influence for each in known], axis=0),
        weights,
        sum(each.squares for each in known) / len(known) ** 2,
        min(int(np.count_nonzero(weights)) - 1, sum(each.freedom for each in known)),
    )


def mean_over_classes(hits: np.ndarray, labels: np.ndarray) -> Mean:
    """The plain mean over all present classes of the mean of their pictures' hits [N], by labels [N].

    A class with a single picture has no variance of its own; the variance between all such classes is used instead,
    which is too large rather than too small (collapsed strata: Cochran, "Sampling Techniques", section 5A.12).
    """
    _, stratum, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    classes, size = len(sizes), sizes[stratum]
    recalls = np.bincount(stratum, weights=hits) / sizes
    value = float(recalls.mean())
    deviation = (hits - recalls[stratum]) * np.sqrt(size / np.maximum(size - 1, 1))
    alone = size == 1
    singles = int(alone.sum())
    if singles > 1:
        deviation[alone] = (hits[alone] - hits[alone].mean()) * sqrt(singles / (singles - 1))
    else:
        deviation[alone] = sqrt(value * (1 - value))
    weights = 1 / (classes * size)
    freedom = int((sizes - 1).sum()) + max(singles - 1, 0)
    return Mean(value, deviation * weights, weights, float((weights**2).sum()), freedom)


def interval(mean: Mean, confidence: float) -> tuple[float, float]:
    """(low, high); (0, 1) for a mean without queries."""
    from scipy.stats import beta

    if np.isnan(mean.value):
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    n = _effective_size(mean, tail)
    hits = n * mean.value
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def difference_interval(new: Mean, old: Mean, confidence: float) -> tuple[float, float]:
    """(low, high) of `new` minus `old`, both over the same N pictures."""
    spread = sqrt(new.variance * old.variance)
    shared = float((new.influence * old.influence).sum())
    if shared > 0:  # half a picture less: a few that agree do not prove that all do
        shared = max(0.0, shared - float((new.weights**2).sum() * (old.weights**2).sum()) / 2)
    ends = (new.value, *interval(new, confidence)), (old.value, *interval(old, confidence))
    return combined(*ends, correlation=min(1.0, max(-1.0, shared / spread)) if spread else 0.0)


def combined(
    new: tuple[float, float, float], old: tuple[float, float, float], correlation: float = 0.0
) -> tuple[float, float]:
    """(low, high) of the difference of two (value, low, high) by variance estimates recovery."""
    (a, a_low, a_high), (b, b_low, b_high) = new, old

    def reach(one: float, other: float) -> float:
        return sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    return a - b - reach(a - a_low, b_high - b), a - b + reach(a_high - a, b - b_low)


def _effective_size(mean: Mean, tail: float) -> float:
    """The number of independent hits or misses with the same information as the mean."""
    from scipy.stats import norm, t

    pictures = 1 / float((mean.weights**2).sum())
    variance = mean.variance
    if mean.simple or not variance or not mean.freedom:
        return pictures
    n = min(mean.value * (1 - mean.value) / variance, 1 / mean.squares)
    n *= float(norm.ppf(tail) / t.ppf(tail, mean.freedom)) ** 2
    return min(n, pictures) if n * min(mean.value, 1 - mean.value) < _FEW else n
