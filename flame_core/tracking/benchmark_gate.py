"""Compares two models on the configured benchmarks, for the gate: headline metrics per language, with intervals.

Only the two models' own intervals are recorded, so the interval of the difference is computed from them: Zou and
Donner's method of variance estimates recovery ("Construction of confidence limits about effect measures", 2008), which
assumes independence. Both models were measured on the same data, so the interval is too wide rather than too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from flame_core.measuring.intervals import combined
from flame_core.params import PromoteParams
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow, headline_metrics
from flame_core.suite.score import MEAN
from flame_core.tracking.benchmarks import recorded
from flame_core.tracking.gate import TOO_FEW, Difference, difference


def benchmark_differences(
    champion: Sequence[BenchmarkResult], challenger: Sequence[BenchmarkResult], params: PromoteParams
) -> tuple[list[Difference], list[str]]:
    """(differences, names of benchmarks that were not measured for both models on the same data).

    As for the held-out split, differences on fewer than `promote.min_pictures` are `too few` to be judged.
    """
    old = {each.benchmark.name: each for each in recorded(champion)}
    new = {each.benchmark.name: each for each in recorded(challenger)}
    shared = [name for name in new if name in old and old[name].digest == new[name].digest]
    rows = [
        _difference(
            f"benchmarks/{name}/{row.language}/{metric}",
            metric,
            before,
            row,
            params.tolerance,
            _asked(new[name], row) < params.min_pictures,
        )
        for name in shared
        for row in new[name].rows
        for metric in headline_metrics(new[name].benchmark)
        if (before := old[name].row(row.language)) and metric in before.intervals and metric in row.intervals
    ]
    return rows, sorted((old.keys() | new.keys()) - set(shared))


def _asked(result: BenchmarkResult, row: LanguageRow) -> float:
    """Pictures that a row was measured on, or questions if these are fewer; of a mean, the fewest of a language."""
    rows = [each for each in result.rows if each.language != MEAN] if row.language == MEAN else [row]
    return min(each.facts.get(name, math.inf) for each in rows for name in ("pictures", "questions"))


def _difference(
    measure: str, metric: str, old: LanguageRow, new: LanguageRow, tolerance: float, few: bool
) -> Difference:
    before, after = ((row.metrics[metric], *row.intervals[metric]) for row in (old, new))
    found = difference(measure, before[0], after[0], *combined(after, before), tolerance)
    return replace(found, verdict=TOO_FEW) if few else found
