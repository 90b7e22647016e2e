"""One figure measured with several seeds, as text."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev, variance


def mean_and_deviation(values: Sequence[float]) -> str:
    """`38.3 ± 1.2`: the mean and the standard deviation of a seed; the deviation only of two or more."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def compared(values: Sequence[float], others: Sequence[float]) -> str:
    """`38.3 ± 1.2 (+1.2, +2.0 SE)`: the mean of values, with the `difference` from others if there is one."""
    apart = difference(values, others)
    return mean_and_deviation(values) + (f" ({apart})" if apart else "")


def difference(values: Sequence[float], others: Sequence[float]) -> str:
    """`+1.2, +2.0 SE`: of the means, also in standard errors; empty unless both have two or more and they vary."""
    if min(len(values), len(others)) < 2 or not (error := standard_error(values, others)):
        return ""
    apart = mean(values) - mean(others)
    return f"{apart:+.1f}, {apart / error:+.1f} SE"


def standard_error(some: Sequence[float], others: Sequence[float]) -> float:
    """Of the difference of two means."""
    return sqrt(variance(some) / len(some) + variance(others) / len(others))
