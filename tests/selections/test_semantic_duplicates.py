"""SemDeDup within a cluster, compared with the paper's released code, which is written out here."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.selections.semantic_duplicates import compare, keeping_order


def released(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """Which rows are kept: `semdedup.py` of facebookresearch/SemDeDup, of rows in the order in which they are kept."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    upper = np.triu(unit @ unit.T, k=1)
    return upper.max(axis=0) <= threshold


@pytest.mark.parametrize("block", [7, 2**22])
def test_the_same_as_the_released_code(block, monkeypatch):
    monkeypatch.setattr("flame_core.selections.semantic_duplicates._BLOCK", block)
    draw = np.random.default_rng(0)
    vectors = np.rint(np.repeat(draw.normal(size=(40, 12)), 3, axis=0) * 1000 + draw.normal(size=(120, 12)) * 150)
    found = compare(vectors)
    for threshold in (0.5, 0.9, 0.97):
        kept = found.cosine <= threshold
        assert kept.tolist() == released(vectors, threshold).tolist() and 0 < kept.sum() <= 120
    assert found.twin[0] == -1 and (found.twin[1:] < np.arange(1, 120)).all()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose((unit[1:] * unit[found.twin[1:]]).sum(axis=1), found.cosine[1:])


def test_zero_vectors_resemble_nothing_and_one_sample_has_no_twin():
    found = compare(np.array([[1.0, 0], [0, 0], [0, 0], [2, 0]]))
    assert found.cosine.tolist()[3] == 1.0 and found.twin[3] == 0 and (found.cosine[1:3] <= 0).all()
    assert compare(np.ones((1, 2))).twin.tolist() == [-1] and len(compare(np.ones((0, 2))).twin) == 0


def test_the_order():
    to_centroid = np.array([0.9, 0.1, 0.9, 0.5])
    keys = ["d", "c", "b", "a"]
    assert keeping_order(to_centroid, keys, farthest=True).tolist() == [1, 3, 2, 0]
    assert keeping_order(to_centroid, keys, farthest=False).tolist() == [2, 0, 3, 1]
