"""Two models on the configured benchmarks, for the gate: each language's headline metrics, with an interval each.

Of a benchmark only the two intervals are recorded, so that of the difference is made of them: Zou and Donner's method
of variance estimates recovery ("Construction of confidence limits about effect measures", 2008), which takes the two
as independent. They were measured on the same data, so the interval is rather too wide: no loss is found that is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from flame_core.measuring.intervals import combined
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow, headline_metrics
from flame_core.tracking.benchmarks import recorded
from flame_core.tracking.gate import Difference, difference


def benchmark_differences(
    champion: Sequence[BenchmarkResult], challenger: Sequence[BenchmarkResult], tolerance: float
) -> tuple[list[Difference], list[str]]:
    """(the differences, names of benchmarks that were not measured for both on the same data)."""
    old = {each.benchmark.name: each for each in recorded(champion)}
    new = {each.benchmark.name: each for each in recorded(challenger)}
    shared = [name for name in new if name in old and old[name].digest == new[name].digest]
    rows = [
        _difference(f"benchmarks/{name}/{row.language}/{metric}", metric, before, row, tolerance)
        for name in shared
        for row in new[name].rows
        for metric in headline_metrics(new[name].benchmark)
        if (before := old[name].row(row.language)) and metric in before.intervals and metric in row.intervals
    ]
    return rows, sorted((old.keys() | new.keys()) - set(shared))


def _difference(measure: str, metric: str, old: LanguageRow, new: LanguageRow, tolerance: float) -> Difference:
    before, after = ((row.metrics[metric], *row.intervals[metric]) for row in (old, new))
    return difference(measure, before[0], after[0], *combined(after, before), tolerance)
