"""Thresholds from labelled pictures: the best F1 by brute force, and concepts that get none."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.concepts.tag_thresholds import best_threshold


def f1(scores: np.ndarray, present: np.ndarray, threshold: float) -> float:
    said = scores > threshold
    return 2 * (said & present).sum() / (said.sum() + present.sum())


def test_no_threshold_is_better_and_the_lowest_of_equal_ones_is_taken():
    draw = np.random.default_rng(0)
    for _ in range(50):
        scores = np.round(draw.random(20), 1)
        present = draw.random(20) < 0.2 + 0.6 * scores
        present[0], scores[0] = True, 0.5
        scores = scores.astype(np.float16).astype(np.float64)  # as stored
        threshold, reached = best_threshold(scores, present, 0.15)
        grid = [0.15, *np.arange(0.15, 1, 0.01)]
        assert reached == pytest.approx(f1(scores, present, threshold))
        assert reached == pytest.approx(max(f1(scores, present, each) for each in grid))
        assert not any(f1(scores, present, each) >= reached and each < threshold - 0.1 for each in grid)


def test_neighbours_among_stored_scores_are_told_apart():
    low = np.float16(0.7)
    high = np.nextafter(low, np.float16(1))
    threshold, reached = best_threshold(np.array([low, high], np.float64), np.array([False, True]), 0.1)
    assert reached == 1.0 and low <= np.float16(threshold) < high


def test_by_hand():
    scores = np.array([-np.inf, 0.2, 0.3, 0.6, 0.8])
    present = np.array([False, False, True, True, True])
    assert best_threshold(scores, present, 0.1) == (0.25, 1.0)
    assert best_threshold(scores, np.array([True, False, False, False, True]), 0.1) == (
        pytest.approx(0.7, abs=1e-3),
        2 / 3,
    )
    assert best_threshold(np.array([0.5, 0.5]), np.array([True, False]), 0.1) == (0.1, 2 / 3)
