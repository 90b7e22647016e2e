"""Mini-batch spherical k-means: its formula, planted directions, and the same bytes on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score
from threadpoolctl import threadpool_limits

from flame_core.clustering import spherical
from flame_core.clustering.spherical import UNIT, nearest, on_sphere
from flame_core.codes.minibatch import Batches, Fit, first_fit, next_fit


def planted(codes: int = 20, each: int = 100, dims: int = 12, noise: float = 0.15):
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(codes, dims))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = draw.permutation(np.repeat(np.arange(codes), each))
    return on_sphere(centres[labels] + noise * draw.normal(size=(len(labels), dims))).astype(np.int16), labels


def fitted(tokens: np.ndarray, codes: int, size: int, steps: int = 30) -> Fit:
    fit, batches = first_fit(tokens, codes, 0), Batches(len(tokens), size, 0)
    for step in range(steps):
        fit = next_fit(fit, tokens[batches.rows(step)])
    return fit


def test_planted_directions_are_found_from_small_batches():
    tokens, truth = planted()
    fit = fitted(tokens, 20, 200)
    assert adjusted_mutual_info_score(truth, nearest(tokens, fit.codes)[0]) > 0.95


def test_a_step_by_hand():
    tokens = np.array([[UNIT, 0], [0, UNIT], [UNIT, 0]], np.int16)
    fit = Fit(tokens[:2], np.array([[3000.0, 0.0], [0.0, 10.0]]), np.array([2.0, 1.0]))
    after = next_fit(fit, tokens)
    assert after.sums.tolist() == [[2700 + 2 * UNIT, 0], [0, 9 + UNIT]]
    assert after.counts.tolist() == [pytest.approx(3.8), pytest.approx(1.9)]
    assert after.codes.tolist() == [[UNIT, 0], [0, UNIT]]


def test_a_code_without_tokens_takes_the_worst_token():
    tokens = on_sphere(np.array([[1, 0], [1, 0.1], [0.6, 0.8]])).astype(np.int16)
    twice = Fit(tokens[[0, 0]], np.zeros((2, 2)), np.zeros(2))
    assert next_fit(twice, tokens).codes[1].tolist() == tokens[2].tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_parts_change_no_byte(monkeypatch, threads):
    tokens, _ = planted(noise=0.5)
    expected = fitted(tokens, 24, 300, steps=8)
    monkeypatch.setattr(spherical, "_SCORES", 900)
    with threadpool_limits(threads):
        again = fitted(tokens, 24, 300, steps=8)
    for name, value in expected.arrays().items():
        assert np.array_equal(again.arrays()[name], value), name


def test_batches_go_through_all_tokens_in_circles():
    batches = Batches(10, 4, 3)
    rows = [batches.rows(step) for step in range(5)]
    assert sorted(np.concatenate(rows).tolist()) == sorted([*range(10)] * 2)
    assert Batches(10, 50, 3).rows(7).tolist() == list(range(10))


def test_the_order_of_tokens_is_drawn_once_a_fit(monkeypatch):
    order = np.random.default_rng(3).permutation(10).tolist()
    draw, calls = np.random.default_rng, []
    monkeypatch.setattr(np.random, "default_rng", lambda seed: calls.append(seed) or draw(seed))
    batches = Batches(10, 4, 3)
    rows = [batches.rows(step).tolist() for step in range(3)]
    assert rows == [sorted(part) for part in (order[:4], order[4:8], order[8:] + order[:2])]
    assert calls == [3]
