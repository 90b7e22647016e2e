"""Which rows a clustering is fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.clustering.pipeline import chosen_rows


@pytest.mark.parametrize("most", [0, 1, 40, 116, 117, 200])
@pytest.mark.parametrize("sizes", [{"a": 50, "b": 0, "c": 66, "d": 1}, {"a": 117}])
def test_rows_of_each_shard_are_those_of_one_draw_over_all(sizes, most):
    found = chosen_rows(sizes, most, seed=3)
    drawn = np.arange(117) if most >= 117 else np.sort(np.random.default_rng(3).permutation(117)[:most])
    assert list(found) == list(sizes)
    start = 0
    for shard, size in sizes.items():
        inside = (drawn >= start) & (drawn < start + size)
        assert found[shard].tolist() == (drawn[inside] - start).tolist()
        start += size
