from __future__ import annotations

import numpy as np
import pytest

from flame_core.data.near_duplicates import COLOUR_TOLERANCE, Looks, common_hashes, near_duplicates, near_groups


def _looks(rng: np.random.Generator, count: int) -> Looks:
    """Random looks of which many are close: few hash centres and few colours."""
    centres = rng.integers(0, 2**64, 20, dtype=np.uint64)
    hashes = centres[rng.integers(0, 20, count)]
    for _ in range(7):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64))
    colours = rng.integers(0, 3, (count, 1), dtype=np.uint8) * 7 + rng.integers(0, 6, (count, 192), dtype=np.uint8)
    return Looks(hashes, colours)


def _brute_force(pictures: Looks, others: Looks, distance: int) -> list[set[int]]:
    found = []
    for hash_, colours in zip(pictures.hashes, pictures.colours, strict=True):
        found.append(
            {
                j
                for j in range(len(others.hashes))
                if int(hash_ ^ others.hashes[j]).bit_count() <= distance
                and np.abs(colours.astype(float) - others.colours[j]).mean() <= COLOUR_TOLERANCE
            }
        )
    return found


@pytest.mark.parametrize("distance", [0, 1, 4, 6, 16])
@pytest.mark.parametrize("block", [50, 1 << 21])
def test_the_same_as_comparing_all(distance, block, monkeypatch):
    monkeypatch.setattr("flame_core.data.near_duplicates._BLOCK", block)
    monkeypatch.setattr("flame_core.data.near_duplicates._COLOUR_BLOCK", 7)
    rng = np.random.default_rng(distance)
    pictures, others = _looks(rng, 300), _looks(rng, 120)
    pictures.hashes[:5] = others.hashes[:5]
    pictures.colours[:5] = others.colours[:5]
    expected = _brute_force(pictures, others, distance)
    found = near_duplicates(pictures, others, distance)
    assert [number >= 0 for number in found] == [bool(some) for some in expected]
    assert all(number in some for number, some in zip(found, expected, strict=True) if some)
    assert 5 <= (found >= 0).sum() < 300


def test_like_shapes_of_other_colours_are_no_duplicates():
    one = Looks(np.array([5], np.uint64), np.zeros((1, 192), np.uint8))
    other = Looks(np.array([5], np.uint64), np.full((1, 192), 9, np.uint8))
    assert near_duplicates(one, one, 6) == [0]
    assert near_duplicates(one, other, 6) == [-1]


def test_nothing_to_compare_or_switched_off():
    some = _looks(np.random.default_rng(0), 3)
    none = some[np.array([], np.int64)]
    assert near_duplicates(some, none, 6).tolist() == [-1, -1, -1]
    assert near_duplicates(none, some, 6).tolist() == []
    assert near_duplicates(some, some, -1).tolist() == [-1, -1, -1]


def test_many_equal_hashes_stay_within_memory():
    many = Looks(np.zeros(20_000, np.uint64), np.zeros((20_000, 192), np.uint8))
    others = Looks(np.zeros(2_000, np.uint64), np.full((2_000, 192), 99, np.uint8))
    others.colours[-1] = 0
    assert (near_duplicates(many[np.arange(300)], others, 2) == 1_999).all()
    assert (near_duplicates(many, others[np.arange(1_990, 2_000)], 0) == 9).all()


@pytest.mark.parametrize("distance", [0, 4])
def test_groups_are_the_components_of_all_alike_pairs(distance, monkeypatch):
    monkeypatch.setattr("flame_core.data.near_duplicates._BLOCK", 50)
    monkeypatch.setattr("flame_core.data.near_duplicates._COLOUR_BLOCK", 7)
    pictures = _looks(np.random.default_rng(1), 200)
    pictures.hashes[:9] = pictures.hashes[9:18]
    pictures.colours[:9] = pictures.colours[9:18]
    expected = [{i} for i in range(200)]  # united one by one
    for i, others in enumerate(_brute_force(pictures, pictures, distance)):
        for j in others:
            if expected[i] is not expected[j]:
                joined = expected[i] | expected[j]
                for k in joined:
                    expected[k] = joined
    groups = near_groups(pictures, distance)
    found = [set(np.flatnonzero(groups == group).tolist()) for group in groups]
    assert found == expected and max(map(len, found)) > 1


def test_common_hashes():
    hashes = np.array([5, 7, 5, 9, 5, 7], np.uint64)
    assert common_hashes(hashes, 2).tolist() == [True, False, True, False, True, False]
    assert not common_hashes(hashes, 3).any() and not common_hashes(hashes[:0], 1).any()
