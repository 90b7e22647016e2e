"""Mutual nearest neighbours, compared with the definition written out."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.alignment import neighbours
from flame_core.alignment.neighbours import nearest, shared


def by_definition(one: np.ndarray, other: np.ndarray, k: int) -> list[float]:
    def near(vectors: np.ndarray, at: int) -> set[int]:
        centred = vectors - vectors.mean(axis=0)
        cosines = centred @ centred[at] / np.linalg.norm(centred, axis=1) / np.linalg.norm(centred[at])
        return set(sorted((i for i in range(len(vectors)) if i != at), key=lambda i: -cosines[i])[:k])

    return [len(near(one, i) & near(other, i)) / k for i in range(len(one))]


@pytest.mark.parametrize("block", [7, 1024])
def test_shared_neighbours_are_those_of_the_definition(monkeypatch, block):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    draw = np.random.default_rng(0)
    one = draw.normal(size=(30, 5)) + 4
    other = one @ draw.normal(size=(5, 9)) + draw.normal(size=(30, 9))
    np.testing.assert_allclose(shared(nearest(one, 4), nearest(other, 4)), by_definition(one, other, 4))


def test_the_same_neighbours_are_all_shared_whatever_scale_and_shift():
    one = np.random.default_rng(0).normal(size=(30, 5))
    assert (shared(nearest(one, 4), nearest(3 * one + 100, 4)) == 1).all()


def test_unrelated_vectors_share_as_many_as_chance_says():
    draw = np.random.default_rng(0)
    found = shared(nearest(draw.normal(size=(800, 8)), 10), nearest(draw.normal(size=(800, 8)), 10))
    assert found.mean() == pytest.approx(10 / 799, abs=0.004)
