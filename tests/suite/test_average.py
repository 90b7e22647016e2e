from __future__ import annotations

import math

import pytest

from flame_core.pages.benchmark_section import benchmark_section
from flame_core.suite.average import PUBLISHED, TEN_SETS, average_of_ten
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow
from flame_core.suite.definition import shipped
from tests.suite.datasets import benchmark


def measured(values, language="en"):
    return [
        BenchmarkResult(
            benchmark("classification", "clip_benchmark", name=name, languages=[language]),
            "measured",
            rows=[LanguageRow(language, {"acc1": value}, {"acc1": (value - 0.02, value + 0.04)}, {"acc1": 0.1}, {})],
        )
        for name, value in zip(TEN_SETS, values, strict=False)
    ]


def test_the_average_is_over_ten_sets_that_ship():
    assert len(TEN_SETS) == len(set(TEN_SETS)) == 10
    assert set(TEN_SETS) <= set(shipped())


def test_the_interval_narrows_as_that_of_ten_independent_means():
    found = average_of_ten(measured([0.1 * n for n in range(1, 11)]))
    assert found
    assert found.value == pytest.approx(0.55)
    assert found.value - found.low == pytest.approx(0.02 / math.sqrt(10))
    assert found.high - found.value == pytest.approx(0.04 / math.sqrt(10))
    assert found.chance == pytest.approx(0.1)


@pytest.mark.parametrize("results", [measured([0.5] * 9), measured([0.5] * 10, language="de"), []])
def test_without_all_ten_there_is_no_average(results):
    assert average_of_ten(results) is None
    assert "Average" not in str([row.benchmark for row in benchmark_section({"mine": results}).rows])


def test_a_page_quotes_the_published_average_beside_it():
    section = benchmark_section({"mine": measured([0.5] * 10), "partly": measured([0.4] * 7)})
    row = section.rows[-1]
    assert (row.benchmark, row.metric, row.best) == ("Average of 10 data sets", "zero-shot top-1", PUBLISHED)
    assert [cell.value for cell in row.cells] == [pytest.approx(0.5), None]
    assert row.cells[1].why == "not measured on all ten"
