"""Compares two models on the configured benchmarks, for the gate: headline metrics per language, with intervals.

Only the two models' own intervals are recorded, so the interval of the difference is computed from them: Zou and
Donner's method of variance estimates recovery ("Construction of confidence limits about effect measures", 2008), which
assumes independence. Both models were measured on the same data, so the interval is too wide rather than too narrow.
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
    """(differences, names of benchmarks that were not measured for both models on the same data)."""
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
