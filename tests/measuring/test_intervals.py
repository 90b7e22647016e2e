"""Intervals against scipy's, and how often they hold the truth (seeded simulations; 95 % is asked for)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest

from flame_core.measuring.intervals import (
    Mean,
    by_picture,
    combined,
    difference_interval,
    interval,
    mean_of,
    mean_over_classes,
    ratio,
)

TRIALS = 300
LEAST = 0.93  # of the trials


def plain(hits: np.ndarray) -> Mean:
    return ratio(hits.astype(float), np.ones(len(hits)))


def covered(trial, truth: float) -> float:
    """How often the interval of `trial()` holds the truth."""
    ends = [interval(trial(), 0.95) for _ in range(TRIALS)]
    return np.mean([low <= truth <= high for low, high in ends])


@pytest.mark.parametrize("hits", [0, 1, 37, 127, 128])
def test_one_query_a_picture_is_clopper_and_pearson(hits):
    exact = binomtest(hits, 128).proportion_ci(0.95, "exact")
    assert interval(plain(np.arange(128) < hits), 0.95) == pytest.approx((exact.low, exact.high), abs=1e-9)
    exact = binomtest(hits, 128).proportion_ci(0.5, "exact")
    assert interval(plain(np.arange(128) < hits), 0.5) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_nothing_that_was_hit_is_no_certainty_and_no_query_no_knowledge():
    assert interval(plain(np.zeros(10)), 0.95) == (0, pytest.approx(1 - 0.025**0.1))
    assert interval(plain(np.ones(10)), 0.95) == (pytest.approx(0.025**0.1), 1)
    assert interval(ratio(np.zeros(4), np.zeros(4)), 0.95) == (0, 1)
    assert interval(plain(np.ones(1)), 0.95) == (pytest.approx(0.025), 1)


@pytest.mark.parametrize("n", [10, 128, 1000])
@pytest.mark.parametrize("p", [0, 0.01, 0.05, 0.3, 0.97])
def test_a_proportion_is_covered(n, p):
    rng = np.random.default_rng(0)
    assert covered(lambda: plain(rng.random(n) < p), p) >= LEAST


@pytest.mark.parametrize("n", [10, 128, 1000])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.97])
@pytest.mark.parametrize("alike", [0.05, 0.8])
def test_several_queries_a_picture_and_several_languages_are_covered(n, p, alike):
    """Pictures have a chance of their own (beta), so queries about one are alike."""
    rng = np.random.default_rng(1)
    spread = (1 - alike) / alike

    def chances():
        return rng.beta(p * spread, (1 - p) * spread, n)

    assert covered(lambda: ratio(rng.binomial(5, chances()).astype(float), np.full(n, 5.0)), p) >= LEAST
    if n == 128:

        def languages():
            own = chances()
            return mean_of([plain(rng.random(n) < own) for _ in range(3)])

        assert covered(languages, p) >= LEAST


@pytest.mark.parametrize("classes", [5, 20, 100])
@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("rate", ["alike", "apart", "rare"])
def test_a_mean_per_class_of_few_pictures_each_is_covered(classes, size, rate):
    rng = np.random.default_rng(2)
    own = {"alike": np.full(classes, 0.3), "apart": rng.beta(0.5, 0.5, classes), "rare": np.full(classes, 0.01)}[rate]
    labels = np.repeat(np.arange(classes), size)
    assert (
        covered(lambda: mean_over_classes((rng.random(len(labels)) < own[labels]) * 1.0, labels), own.mean()) >= LEAST
    )


@pytest.mark.parametrize("n", [10, 128, 1000])
@pytest.mark.parametrize(("old", "new"), [(0, 0.01), (0.01, 0.01), (0.3, 0.3), (0.3, 0.4), (0.97, 0.97), (0.1, 0.9)])
@pytest.mark.parametrize("paired", [0.0, 0.9])
def test_a_difference_is_covered(n, old, new, paired):
    """Two models that are right on the same pictures, as far as `paired` says."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(TRIALS):
        one, other = rng.random((2, n))
        other = np.where(rng.random(n) < paired, one, other)
        low, high = difference_interval(plain(other < new), plain(one < old), 0.95)
        held += low <= new - old <= high
    assert held / TRIALS >= LEAST


def test_width_is_that_of_the_normal_interval_where_there_is_much():
    low, high = interval(plain(np.arange(4000) < 1000), 0.95)
    assert high - low == pytest.approx(2 * 1.96 * (0.25 * 0.75 / 4000) ** 0.5, rel=0.02)
    twice = [plain(np.arange(4000) < hits) for hits in (1000, 1100)]
    low, high = difference_interval(twice[1], twice[0], 0.95)  # 100 of 4000 differ, all in one direction
    assert high - low == pytest.approx(2 * 1.96 * (0.025 * 0.975 / 4000) ** 0.5, rel=0.1)


def test_copies_of_a_query_say_no_more_than_one():
    hits = np.random.default_rng(1).random(400) < 0.4
    copied = ratio(*by_picture(np.repeat(hits, 10), np.repeat(np.arange(400), 10), 400))
    assert interval(copied, 0.95) == pytest.approx(interval(plain(hits), 0.95), abs=2e-3)
    other = ratio(*by_picture(np.random.default_rng(2).random(4000) < 0.4, np.repeat(np.arange(400), 10), 400))
    widths = [np.diff(interval(each, 0.95)).item() for each in (other, copied)]
    assert widths[0] < widths[1] / 2.5  # ten independent queries a picture: a third of the width


def test_the_variance_of_a_ratio_of_pixels_is_that_of_drawn_pictures():
    rng = np.random.default_rng(5)
    union = rng.integers(10, 400, 200).astype(float)
    common = np.floor(union * rng.random(200))
    drawn = rng.integers(0, 200, (4000, 200))
    spread = (common[drawn].sum(axis=1) / union[drawn].sum(axis=1)).std()
    found = ratio(common, union)
    assert found.variance**0.5 == pytest.approx(spread, rel=0.05)
    low, high = interval(found, 0.95)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_a_mean_of_means_leaves_out_what_has_no_query():
    nothing = ratio(np.zeros(3), np.zeros(3))
    half, whole = plain(np.array([1, 0, 1])), plain(np.array([1, 1, 1]))
    assert mean_of([half, nothing, whole]).value == pytest.approx((2 / 3 + 1) / 2)
    assert mean_of([nothing, half]) is half
    assert np.isnan(mean_of([nothing, nothing]).value)


def test_a_model_does_not_differ_from_itself_and_the_interval_is_symmetric():
    same = plain(np.arange(50) < 20)
    low, high = difference_interval(same, same, 0.95)
    assert low == pytest.approx(-high) and abs(low) < 0.05
    one, other = plain(np.arange(50) < 20), plain(np.arange(50) % 3 < 1)
    forth, back = difference_interval(one, other, 0.95), difference_interval(other, one, 0.95)
    assert forth == pytest.approx((-back[1], -back[0]))


def test_more_confidence_is_a_wider_interval():
    found = ratio(np.array([2, 1, 0, 3.0]), np.array([3, 3, 3, 3.0]))
    widths = [high - low for low, high in (interval(found, confidence) for confidence in (0.5, 0.8, 0.95, 0.99))]
    assert all(a < b for a, b in pairwise(widths))
    assert combined((0.5, 0.4, 0.6), (0.3, 0.2, 0.4)) == pytest.approx((0.2 - 0.02**0.5, 0.2 + 0.02**0.5))
