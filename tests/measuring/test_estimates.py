"""Measures, groups of them, and what is kept of every picture."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.measuring.estimates import Estimates, means_of
from flame_core.measuring.intervals import interval, mean_of, ratio


def test_estimates_of_measures_and_groups():
    estimates = Estimates(4)
    estimates.add("a", np.array([1, 0, 1, 1.0]), np.array([0, 1, 2, 3]))
    estimates.add("b", np.array([0.5]), np.array([2]))
    estimates.groups["mean"] = ["a", "b"]
    estimates.others["classes"] = ratio(np.ones(2), np.ones(2))
    found = estimates.intervals(0.95)
    assert set(found) == {f"{name}{part}" for name in ("a", "b", "mean", "classes") for part in ("", "/low", "/high")}
    assert found["a"] == 0.75
    assert found["mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["a/low"] < 0.75 < found["a/high"] < 1
    assert found["classes"] == found["classes/high"] == 1


def test_the_mean_over_measures_leaves_out_one_without_a_query():
    estimates = Estimates(4)
    estimates.add("toys", np.array([1.0, 0.0]), np.array([0, 1]))
    estimates.add("boats", np.array([1.0, 1.0]), np.array([2, 3]))
    estimates.add("houses", np.array([]), np.array([], int))
    estimates.groups["mean"] = ["toys", "boats", "houses"]
    found = estimates.intervals(0.95)
    assert found["mean"] == pytest.approx((0.5 + 1.0) / 2)
    assert 0 <= found["mean/low"] < found["mean"] < found["mean/high"] <= 1
    assert (found["houses/low"], found["houses/high"]) == (0, 1)


def test_outcomes_give_the_means_back():
    estimates = Estimates(4)
    estimates.add("a", np.array([1, 0, 1, 1, 0.25]), np.array([0, 1, 2, 3, 3]))
    estimates.add("b", np.array([0.5]), np.array([2]))
    estimates.groups["mean"] = ["a", "b"]
    table = estimates.outcomes(["a", "b"])
    assert table.to_pylist()[1] == {"measure": "a", "picture": 1, "sum": 0.0, "queries": 1}
    assert table.to_pylist()[4] == {"measure": "b", "picture": 2, "sum": 0.5, "queries": 1}
    means, found = means_of(table, 4), estimates.intervals(0.95)
    for name, mean in {**means, "mean": mean_of([means["a"], means["b"]])}.items():
        assert (mean.value, *interval(mean, 0.95)) == (found[name], found[f"{name}/low"], found[f"{name}/high"])
