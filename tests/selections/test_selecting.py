"""Selections: exact and nested budgets, keys that decide alone, and a set full of near-duplicates (D9)."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from flame_core.errors import InputError
from flame_core.params import SelectionParams
from flame_core.selections.selecting import require_budgets, select_all, selection_file


def of(**values) -> SelectionParams:
    return SelectionParams.model_validate(values)


def clustered(n: int = 1000, clusters: int = 12, seed: int = 0) -> tuple[list[str], np.ndarray]:
    draw = np.random.default_rng(seed)
    weights = draw.pareto(1.2, size=clusters) + 0.02
    return [f"p/{i:05}" for i in range(n)], draw.choice(clusters, size=n, p=weights / weights.sum())


@pytest.mark.parametrize("mode", ["proportional", "sqrt", "capped", "random"])
def test_selections_are_exact_and_a_smaller_one_lies_within_a_larger_one(mode):
    keys, groups = clustered(999)
    shares = (0.1, 0.25, 0.26, 0.5, 0.9, 1.0)
    found = select_all({f"s{i}": of(share=s, mode=mode) for i, s in enumerate(shares)}, keys, groups, 12)
    sets = [set(each.picked.places.tolist()) for each in found]
    assert [len(each) for each in sets] == [100, 250, 260, 500, 899, 999]
    assert all(small < large for small, large in itertools.pairwise(sets))
    for each in found:
        assert np.array_equal(np.bincount(groups[each.picked.places], minlength=12), each.counts)


def test_many_tiny_clusters_stay_nested():
    """Largest remainder alone would take samples away again as the share grows."""
    keys = [f"k{i}" for i in range(140)]
    groups = np.repeat([0, 1, 2], [60, 60, 20])
    small, large = select_all({"a": of(samples=10), "b": of(samples=11)}, keys, groups, 3)
    assert set(small.picked.places) < set(large.picked.places)
    assert small.counts.tolist() == [4, 4, 2] and large.counts.tolist() == [5, 4, 2]


def test_shards_and_the_order_of_samples_change_no_selection():
    keys, groups = clustered()
    selections = {"a": of(share=0.25), "b": of(share=0.3, mode="random", seed=4)}
    first = select_all(selections, keys, groups, 12)
    order = np.random.default_rng(3).permutation(len(keys))
    again = select_all(selections, [keys[i] for i in order], groups[order], 12)
    for one, two in zip(first, again, strict=True):
        assert selection_file(one, keys) == selection_file(two, [keys[i] for i in order])


def test_the_file_has_keys_clusters_ranks_and_weights():
    keys, groups = ["b", "a", "d", "c"], np.array([0, 0, 0, 1])
    (found,) = select_all({"x": of(samples=3, mode="capped")}, keys, groups, 2)
    table = pq.read_table(io.BytesIO(selection_file(found, keys))).to_pydict()
    assert table["key"] == sorted(table["key"]) and table["cluster"] == [
        groups[keys.index(key)] for key in table["key"]
    ]
    assert sorted(table["rank"]) == [0, 0, 1]
    stands = {0: 1.5, 1: 1.0}
    mean = (1.5 + 1.5 + 1.0) / 3
    assert table["weight"] == pytest.approx([stands[cluster] / mean for cluster in table["cluster"]])


def test_random_is_no_prefix_and_not_the_clusters_own_choice():
    keys, groups = clustered()
    drawn, spread, other = select_all(
        {"r": of(share=0.25, mode="random"), "p": of(share=0.25), "s": of(share=0.25, mode="random", seed=1)},
        keys, groups, 12,
    )  # fmt: skip
    sets = [set(each.picked.places.tolist()) for each in (drawn, spread, other)]
    assert len(sets[0] & set(range(250))) < 100  # 62.5 expected
    assert len(sets[0] & sets[1]) < 100 and len(sets[0] & sets[2]) < 100


def test_a_cap_keeps_what_is_unique_where_near_duplicates_abound():
    """90 % are near-duplicates of ten prototypes, 10 % are unique: at 25 % a cap keeps all of these."""
    keys = [f"k{i:04}" for i in range(1000)]
    groups = np.array([i % 10 if i < 900 else 10 + (i - 900) // 5 for i in range(1000)])  # 20 clusters of unique ones
    chosen = {
        "capped": of(share=0.25, mode="capped"),
        "chance": of(share=0.25, mode="random"),
        "sqrt": of(share=0.25, mode="sqrt"),
    }
    found = {each.name: int((each.picked.places >= 900).sum()) for each in select_all(chosen, keys, groups, 30)}
    assert found["capped"] == 100
    assert 10 <= found["chance"] <= 40  # 25 expected
    assert found["chance"] < found["sqrt"] < 100


def test_a_minimum_per_cluster_and_impossible_budgets():
    keys, groups = clustered(200, 6)
    (found,) = select_all({"x": of(samples=40, min_per_cluster=2)}, keys, groups, 6)
    sizes = np.bincount(groups, minlength=6)
    assert found.counts.sum() == 40 and (found.counts >= np.minimum(2, sizes)).all()
    with pytest.raises(InputError, match=r"selections\.x: min_per_cluster 9 takes \d+ samples, and the budget is 10"):
        select_all({"x": of(samples=10, min_per_cluster=9)}, keys, groups, 6)
    with pytest.raises(
        InputError, match=r"select\.selections\.x: 201 samples, and the training split has 200; lower it"
    ):
        require_budgets({"x": of(samples=201)}, 200)
    with pytest.raises(ValueError, match="write share or samples"):
        of(share=0.5, samples=3)
