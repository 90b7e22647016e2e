"""The zero-shot average of ten data sets, the one figure in which papers of this family sum up classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from flame_core.suite.benchmark_results import BenchmarkResult

TEN_SETS = (
    "food101", "cifar10", "cifar100", "sun397", "cars", "fgvc-aircraft", "dtd", "pets", "caltech101", "flowers",
)  # fmt: skip
METRIC, LANGUAGE = "acc1", "en"
# That FLAME's average is over these ten sets is an assumption: they are those of the work it builds on.
PUBLISHED = (
    "FLAME ViT-B/16 CC3M, as a review quotes it",
    0.403,
    "a review of FLAME's paper, which does not name the ten sets",
)


@dataclass(frozen=True)
class Average:
    """The mean of top-1 accuracy over `TEN_SETS`, with its interval, and that of the chance levels."""

    value: float
    low: float
    high: float
    chance: float


def average_of_ten(results: Sequence[BenchmarkResult]) -> Average | None:
    """A model's average; None unless all ten sets were measured in English.

    The sets share no pictures, so the distances from the mean to the ends of its interval are the root of the summed
    squares of the sets' own (Zou and Donner, Statistics in Medicine 27, 2008), over ten.
    """
    found = {each.benchmark.name: each.row(LANGUAGE) for each in results}
    rows = [row for name in TEN_SETS if (row := found.get(name)) and METRIC in row.metrics]
    count = len(TEN_SETS)
    if len(rows) < count:
        return None
    values = [row.metrics[METRIC] for row in rows]
    ends = [row.intervals[METRIC] for row in rows]
    mean = sum(values) / count
    below = sqrt(sum((value - low) ** 2 for value, (low, _) in zip(values, ends, strict=True))) / count
    above = sqrt(sum((high - value) ** 2 for value, (_, high) in zip(values, ends, strict=True))) / count
    chance = sum(row.chance.get(METRIC, 0.0) for row in rows) / count
    return Average(mean, mean - below, mean + above, chance)
