from __future__ import annotations

import random

import pytest

from flame_core.data.chunks import cut


def _keys(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return sorted({f"{rng.getrandbits(64):016x}" for _ in range(count)})


@pytest.mark.parametrize("average", [1, 2, 7, 64, 500])
def test_chunks_cover_all_keys_and_have_the_promised_sizes(average):
    keys = _keys(5000)
    bounds = cut(keys, average)
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == len(keys)
    sizes = [stop - start for start, stop in bounds]
    assert all(max(1, average // 2) <= size <= 2 * average for size in sizes[:-1])
    assert len(keys) / len(bounds) == pytest.approx(average, rel=0.35)


def test_no_keys_no_chunks():
    assert cut([], 10) == []


def test_added_keys_change_only_the_chunks_they_fall_in():
    keys = _keys(5000)
    before = {tuple(keys[start:stop]) for start, stop in cut(keys, 64)}
    for seed in range(20):
        more = sorted({*keys, *_keys(1, seed + 100)})
        after = {tuple(more[start:stop]) for start, stop in cut(more, 64)}
        assert len(more) == 5001
        assert len(after - before) <= 4  # the one it falls in, and until the old ends are met again
    appended = [*keys, "g1", "g2"]
    after = {tuple(appended[start:stop]) for start, stop in cut(appended, 64)}
    assert len(after - before) == 1
