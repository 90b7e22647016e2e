from __future__ import annotations

import numpy as np
import pytest

from flame_core.evaluation import bootstrap
from flame_core.evaluation.bootstrap import Bootstrap, by_picture
from flame_core.evaluation.estimates import Estimates, mean_of_known
from flame_core.params import BootstrapParams


def interval_of(values, owners, pictures, **params):
    draw = Bootstrap(pictures, BootstrapParams(**params))
    sums, counts = by_picture(np.asarray(values, float), np.asarray(owners), pictures)
    low, high = draw.interval(draw.means(sums[:, None], counts[:, None]))
    return low[0], high[0]


def test_coverage_of_a_known_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        hits = rng.random(200) < 0.3
        low, high = interval_of(hits, np.arange(200), 200, samples=300, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 300 <= 0.985


def test_width_is_that_of_the_normal_interval():
    hits = np.arange(400) < 100
    low, high = interval_of(hits, np.arange(400), 400, samples=4000)
    assert high - low == pytest.approx(2 * 1.96 * (0.25 * 0.75 / 400) ** 0.5, rel=0.08)
    narrow = interval_of(hits, np.arange(400), 400, samples=4000, confidence=0.5)
    assert narrow[1] - narrow[0] == pytest.approx(2 * 0.674 * (0.25 * 0.75 / 400) ** 0.5, rel=0.15)


def test_queries_of_one_picture_are_drawn_together():
    """Ten copies of each query say no more than one: the interval must not shrink."""
    hits = np.random.default_rng(1).random(100) < 0.4
    once = interval_of(hits, np.arange(100), 100, samples=2000)
    copied = interval_of(np.repeat(hits, 10), np.repeat(np.arange(100), 10), 100, samples=2000)
    assert copied == pytest.approx(once)


def test_same_seed_same_draws_in_any_block_size(monkeypatch):
    values, owners = np.random.default_rng(2).random(50), np.arange(50)
    whole = interval_of(values, owners, 50, samples=101, seed=3)
    assert whole == interval_of(values, owners, 50, samples=101, seed=3)
    assert whole != interval_of(values, owners, 50, samples=101, seed=4)
    monkeypatch.setattr(bootstrap, "_BLOCK_COUNTS", 50 * 7)
    assert whole == interval_of(values, owners, 50, samples=101, seed=3)


def test_a_column_that_no_draw_meets_is_unknown():
    draw = Bootstrap(3, BootstrapParams(samples=5))
    low, high = draw.interval(np.array([[np.nan, 0.5], [np.nan, 0.5]]))
    assert low.tolist() == [0.0, 0.5]
    assert high.tolist() == [1.0, 0.5]


def test_estimates_of_measures_and_groups():
    estimates = Estimates(4)
    estimates.add("a", np.array([1, 0, 1, 1.0]), np.array([0, 1, 2, 3]))
    estimates.add("b", np.array([0.5]), np.array([2]), hidden=True)
    estimates.groups["mean"] = ["a", "b"]
    found = estimates.intervals(Bootstrap(4, BootstrapParams(samples=400)))
    assert set(found) == {"a", "a/low", "a/high", "mean", "mean/low", "mean/high"}
    assert found["a"] == 0.75
    assert found["mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["a/low"] < 0.75 < found["a/high"] == 1
    table = estimates.outcomes(["a", "b"]).to_pylist()
    assert len(table) == 5
    assert table[1] == {"measure": "a", "picture": 1, "sum": 0.0, "queries": 1}
    assert table[4] == {"measure": "b", "picture": 2, "sum": 0.5, "queries": 1}


def test_mean_of_known_leaves_out_what_is_missing():
    found = mean_of_known(np.array([[0.2, np.nan], [0.2, 0.4], [np.nan, np.nan]]))
    assert found[:2] == pytest.approx([0.2, 0.3])
    assert np.isnan(found[2])
