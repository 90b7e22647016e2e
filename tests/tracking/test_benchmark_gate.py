"""Benchmarks in the gate: the interval of a difference from two intervals, and what can be compared at all."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.params import PromoteParams
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow
from flame_core.suite.definition import Benchmark
from flame_core.tracking.benchmark_gate import benchmark_differences
from flame_core.tracking.gate import judge
from tests.tracking.test_gate import results, right


def result(
    name: str,
    digest: str = "d",
    layout: str = "clip_benchmark",
    pictures: int = 1000,
    **values: tuple[float, float, float],
) -> BenchmarkResult:
    """A classification benchmark with (accuracy, low, high) by language."""
    data = {"layout": layout, "path": name, "obtain": "make it"}
    benchmark = Benchmark.model_validate(
        {"name": name, "title": name, "task": {"kind": "classification"}, "data": data}
    )
    rows = [
        LanguageRow(language, {"acc1": value, "acc5": 1.0}, {"acc1": (low, high)}, {}, {"pictures": pictures})
        for language, (value, low, high) in values.items()
    ]
    return BenchmarkResult(benchmark, "measured", rows=rows, digest=digest)


def binomial(hits: int, pictures: int) -> tuple[float, float, float]:
    """An accuracy with the 95 % interval of drawn pictures."""
    draws = np.random.default_rng(hits).binomial(pictures, hits / pictures, 20_000) / pictures
    return (hits / pictures, *map(float, np.quantile(draws, [0.025, 0.975])))


@pytest.mark.parametrize(("old", "new", "verdict"), [(500, 600, "better"), (600, 500, "worse"), (500, 520, "same")])
def test_the_interval_is_that_of_two_independent_samples(old: int, new: int, verdict: str) -> None:
    [row], apart = benchmark_differences(
        [result("birds", en=binomial(old, 1000))], [result("birds", en=binomial(new, 1000))], PromoteParams()
    )
    drawn = np.random.default_rng(1).binomial(1000, [[old / 1000], [new / 1000]], (2, 20_000)) / 1000
    low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
    assert (row.low, row.high) == (pytest.approx(low, abs=0.004), pytest.approx(high, abs=0.004))
    assert (row.measure, row.difference, row.verdict) == (
        "benchmarks/birds/en/acc1",
        pytest.approx((new - old) / 1000),
        verdict,
    )
    assert apart == []


def test_only_the_same_data_and_languages_are_compared_and_the_held_out_split_is_not_twice() -> None:
    sure = (0.5, 0.49, 0.51)
    old = [result("a", "d1", en=sure), result("b", en=sure, de=sure), result("h", layout="held_out", en=sure)]
    new = [
        result("a", "d2", en=sure),
        result("b", en=sure, fr=sure),
        result("h", layout="held_out", en=sure),
        result("c", en=sure),
    ]
    rows, apart = benchmark_differences(old, new, PromoteParams(tolerance=0.0))
    assert [row.measure for row in rows] == ["benchmarks/b/en/acc1"]
    assert apart == ["a", "c"]


def test_a_benchmark_that_got_worse_stops_a_challenger_that_is_better_on_the_held_out_split() -> None:
    birds = [result("birds", en=(0.6, 0.58, 0.62))], [result("birds", en=(0.5, 0.48, 0.52))]
    rows, _ = benchmark_differences(*birds, PromoteParams())
    old, new, rule = (
        results(en=right(60)),
        results(en=right(120)),
        PromoteParams(),
    )
    assert judge(old, new, rule, 0.95).promoted
    verdict = judge(old, new, rule, 0.95, rows)
    assert not verdict.promoted and "worse in 1 of 2 measures: benchmarks/birds/en/acc1" in verdict.reason
    tolerated, _ = benchmark_differences(*birds, PromoteParams(tolerance=0.2))
    assert judge(old, new, rule, 0.95, tolerated).promoted


def test_a_benchmark_of_few_pictures_is_shown_and_not_judged() -> None:
    birds = [result("birds", pictures=10, en=(1.0, 0.7, 1.0))], [result("birds", pictures=10, en=(0.3, 0.1, 0.6))]
    rows, _ = benchmark_differences(*birds, PromoteParams())
    assert [row.verdict for row in rows] == ["too few"]
    verdict = judge(results(en=right(60)), results(en=right(120)), PromoteParams(), 0.95, rows)
    assert verdict.promoted and "none worse" in verdict.reason and verdict.differences[-1] == rows[0]
    judged, _ = benchmark_differences(*birds, PromoteParams(min_pictures=10))
    assert [row.verdict for row in judged] == ["worse"]
