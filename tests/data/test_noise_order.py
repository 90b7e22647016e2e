"""Noise of a known share: exact counts, no sample that keeps its texts, nested shares, and the seed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from flame_core.data.noise_order import draw_order, moved, text_rows
from flame_core.errors import InputError

KEYS = [f"toys/{number}" for number in range(137)]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
def test_exactly_the_share_is_moved_and_none_keeps_its_own(share):
    rows = text_rows(draw_order(KEYS, seed=3), share)
    assert sorted(rows) == list(range(137))  # every text still belongs to one sample
    assert (rows != np.arange(137)).sum() == int(share * 137)


def test_a_smaller_share_moves_some_of_what_a_larger_one_moves():
    order = draw_order(KEYS, seed=3)
    sets = [set(np.flatnonzero(text_rows(order, share) != np.arange(137))) for share in (0.05, 0.1, 0.2, 0.3, 1.0)]
    assert all(small < large for small, large in pairwise(sets))


def test_the_order_follows_from_seed_and_keys():
    order = draw_order(KEYS, seed=3)
    assert sorted(order) == list(range(137)) and order.dtype == np.int64
    assert np.array_equal(order, draw_order(KEYS, seed=3)) and not np.array_equal(order, draw_order(KEYS, seed=4))
    turned = draw_order(KEYS[::-1], seed=3)
    assert np.array_equal(turned[::-1], order)  # of the key, not of its place
    assert abs(np.corrcoef(order, np.arange(137))[0, 1]) < 0.3


def test_the_texts_go_round_in_the_order():
    assert text_rows(np.array([2, 0, 1, 3]), 0.75).tolist() == [1, 2, 0, 3]
    assert text_rows(np.array([20, 5, 11]), 0.7).tolist() == [0, 2, 1]  # of a selection: places 5 and 11


@pytest.mark.parametrize(
    ("count", "share", "wanted"),
    [(10, 0.3, 3), (10, 0.7, 7), (100, 0.29, 29), (19, 0.05, 0), (20, 0.05, 0), (40, 0.05, 2)],
)
def test_the_count_is_rounded_down_and_one_sample_cannot_swap(count, share, wanted):
    assert moved(count, share) == wanted


def test_wrong_shares_and_orders_are_refused():
    with pytest.raises(InputError, match=r"share of samples is 1\.2"):
        text_rows(np.arange(3), 1.2)
    with pytest.raises(InputError, match=r"share of samples is -0\.1"):
        text_rows(np.arange(3), -0.1)
    with pytest.raises(InputError, match="two samples have the same place"):
        text_rows(np.array([0, 1, 1]), 0.5)
    assert text_rows(np.array([], np.int64), 0.5).tolist() == []
