"""Perplexity and Gini's coefficient against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.codes.inequality import gini, perplexity


def test_literal_values():
    assert perplexity(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(np.array([7, 0, 0])) == pytest.approx(1)
    assert perplexity(np.array([1, 1, 2])) == pytest.approx(2**1.5)
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert perplexity(np.zeros(3)) == gini(np.zeros(3)) == 0


def test_gini_is_half_the_mean_difference_over_the_mean():
    counts = np.random.default_rng(0).integers(0, 50, size=30)
    difference = np.abs(counts[:, None] - counts[None]).mean()
    assert gini(counts) == pytest.approx(difference / (2 * counts.mean()))
