from __future__ import annotations

import numpy as np
import pytest

from flame_core.measuring.classification import class_embeddings, classify
from tests.measuring import world

AXES = np.eye(3, dtype=np.float32)


def test_hand_made_scores():
    keys = ["a", "b", "c", "d", "e"]
    classes = {"a": "cat", "b": "cat", "d": "dog", "e": "owl"}  # c has none
    z = np.array([[3, 2, 1], [1, 2, 3], [9, 9, 9], [1, 2, 0], [2, 3, 1]], dtype=np.float32)
    found = classify(z, keys, classes, AXES)
    assert found.names == ["cat", "dog", "owl"]
    assert found.pictures.tolist() == [0, 1, 3, 4]
    assert found.hits(1).tolist() == [1, 0, 1, 0]
    assert found.hits(2).tolist() == [1, 0, 1, 0]
    assert found.hits(5).tolist() == [1, 1, 1, 1]
    assert found.confusion().tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert found.majority() == 0.5
    assert found.chance(1) == pytest.approx(1 / 3)
    assert found.chance(5) == 1


def test_constant_scores_give_chance_even_where_the_first_class_is_frequent():
    keys = [f"k{i}" for i in range(10)]
    classes = {key: "a" if i < 8 else "b" for i, key in enumerate(keys)}
    found = classify(np.ones((10, 3), np.float32), keys, classes, np.ones((2, 3), np.float32))
    assert found.hits(1).mean() == pytest.approx(found.chance(1)) == 0.5


def test_a_class_is_the_normalised_mean_of_its_prompts(tmp_path):
    params = world.params(tmp_path).evaluate
    t = class_embeddings(params, ["toys", "boats"], world.lookup)
    mean = (world.vector("raw", "toys", 0) + world.vector("raw", "a drawing of toys", 0)) / 2
    assert t[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert np.linalg.norm(t, axis=1) == pytest.approx(1, abs=1e-6)
