"""The matrix of `text.center: whiten`: equal variance in all directions, as far as the sample says."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.text.store import Centring, unit
from flame_core.text.whitening import whitening


def test_directions_that_vary_much_are_shortened_and_the_size_stays():
    draw = np.random.default_rng(0)
    rotation = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    spread = np.array([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])
    sample = (draw.normal(size=(4000, 2, 6)) * spread) @ rotation.T + [[3.0], [-1.0]]
    mean = sample.mean(axis=0)
    matrix = whitening(sample, mean)
    assert matrix == pytest.approx(matrix.T, abs=1e-6)
    x = (sample - mean).reshape(-1, 6)
    values = np.linalg.eigvalsh(x.T @ x / len(x))
    shrunk = 0.9 * values + 0.1 * values.mean()
    found = np.linalg.eigvalsh((x @ matrix).T @ (x @ matrix) / len(x))
    expected = np.sort(values / shrunk * shrunk.mean())
    assert found == pytest.approx(expected, rel=1e-4)
    assert found.max() / found.min() < values.max() / values.min() / 20


def test_vectors_about_their_mean_are_multiplied_and_made_unit():
    draw = np.random.default_rng(1)
    mean, matrix, t = draw.normal(size=(2, 4)), draw.normal(size=(4, 4)), draw.normal(size=(3, 2, 4))
    own = Centring(["raw/1", "short/1"], mean, matrix=matrix)
    expected = unit((t - mean[[1, 0]]) @ matrix)
    np.testing.assert_allclose(own.applied(t, ["short/1", "long/9"]), expected)  # an unknown slot has the first's mean
