"""Budgets of clusters: exact totals by largest remainder, literal examples, and nested selections."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.selections.budgets import allocate, quotas

MODES = ["proportional", "sqrt", "capped"]


def counts(sizes, budget, mode="proportional", at_least=None) -> list[int]:
    bound = None if at_least is None else np.array(at_least)
    return allocate(np.array(sizes), budget, mode, bound).tolist()


def test_largest_remainder_with_ties_to_the_larger_cluster():
    assert counts([5, 3, 2], 5) == [3, 1, 1]  # quotas 2.5, 1.5, 1
    assert counts([2, 3, 5], 5) == [1, 1, 3]
    assert counts([3, 3], 3) == [2, 1]  # equal sizes: the lower number
    assert counts([10, 10, 10], 10) == [4, 3, 3]
    assert counts([70, 20, 10], 10) == [7, 2, 1]


def test_modes_by_hand():
    assert counts([100, 25, 4], 34, "sqrt") == [20, 10, 4]  # roots 10, 5, 2 times 2
    assert counts([100, 25, 1], 31, "sqrt") == [20, 10, 1]  # the last is full, so the others share 30 as 10 to 5
    assert counts([90, 50, 10, 3], 43, "capped") == [15, 15, 10, 3]
    assert counts([90, 50, 10, 3], 44, "capped") == [16, 15, 10, 3]
    assert counts([0, 4, 0, 4], 4, "capped") == [0, 2, 0, 2]


@pytest.mark.parametrize("mode", MODES)
def test_totals_are_exact_and_no_cluster_gives_more_than_it_has(mode):
    draw = np.random.default_rng(0)
    for _ in range(200):
        sizes = (draw.pareto(1.0, size=draw.integers(1, 40)) * 5).astype(np.int64)
        sizes[0] += 1
        budget = int(draw.integers(0, sizes.sum() + 1))
        found = allocate(sizes, budget, mode)
        assert found.sum() == budget and (found >= 0).all() and (found <= sizes).all()
        q = quotas(sizes, budget, mode)
        assert q.sum() == pytest.approx(budget) and (np.abs(found - q) < 1 + 1e-6).all()
    assert allocate(sizes, int(sizes.sum()), mode).tolist() == sizes.tolist()


def test_the_alabama_paradox_is_there_and_a_lower_bound_undoes_it():
    sizes = [60, 60, 20]
    small = counts(sizes, 10)  # quotas 4.29, 4.29, 1.43
    large = counts(sizes, 11)  # quotas 4.71, 4.71, 1.57
    assert small == [4, 4, 2] and large == [5, 5, 1]  # the third cluster loses one
    assert counts(sizes, 11, at_least=small) == [5, 4, 2]


@pytest.mark.parametrize("mode", MODES)
def test_a_chain_of_lower_bounds_is_nested_and_exact(mode):
    draw = np.random.default_rng(1)
    for _ in range(60):
        sizes = draw.integers(0, 9, size=30)
        sizes[0] += 5
        before = np.zeros(30, np.int64)
        for budget in sorted(draw.integers(0, sizes.sum() + 1, size=6).tolist()):
            found = allocate(sizes, budget, mode, before)
            assert found.sum() == budget and (found >= before).all() and (found <= sizes).all()
            before = found


def test_impossible_budgets_are_refused():
    with pytest.raises(ValueError, match="a budget of 9 lies outside 0 to 8"):
        counts([5, 3], 9)
    with pytest.raises(ValueError, match="a budget of 2 lies outside 3 to 8"):
        counts([5, 3], 2, at_least=[2, 1])
