"""The fit of score over frequency: planted slopes, a confound of test sets, shuffled scores, oracles of scipy."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from flame_core.concepts.frequency_fit import Points, fit
from flame_core.concepts.paper_binned import paper_binned
from flame_core.errors import InputError

REPLAY = "FLAME_CONCEPT_COUNTS"  # path of a table of published counts and accuracies


def points(frequency: np.ndarray, score: np.ndarray, sets: list[str] | None = None, names=None) -> Points:
    count = len(frequency)
    names = [f"c{number}" for number in range(count)] if names is None else names
    return Points(names, sets or ["a"] * count, frequency, score, np.full(count, 10))


def planted(seed: int, slope: float = 7.0) -> Points:
    """400 concepts, f log-uniform from 1 to 1e5, score = 10 + slope log10 f + N(0, 5)."""
    draw = np.random.default_rng(seed)
    f = np.round(10 ** draw.uniform(0, 5, 400)).astype(np.int64)
    return points(f, 10 + slope * np.log10(f) + draw.normal(0, 5, 400))


def test_a_planted_slope_is_found_and_agrees_with_scipy():
    found = fit(planted(0), 300, 200, seed=0)
    given = planted(0)
    x = np.log10(given.frequency)
    assert found.slope_low is not None and found.slope_high is not None
    assert found.slope_low < 7 < found.slope_high and found.slope_high - found.slope_low < 1.5
    assert found.r == pytest.approx(stats.pearsonr(x, given.score)[0])
    assert found.spearman == pytest.approx(stats.spearmanr(x, given.score)[0])
    assert found.slope_raw == pytest.approx(stats.linregress(x, given.score).slope) == pytest.approx(found.slope)
    assert found.slope_weighted == pytest.approx(found.slope)  # equal weights
    assert found.p == found.p_within == pytest.approx(1 / 201)
    assert found.zero == 0 and found.zero_mean is None
    assert found == fit(planted(0), 300, 200, seed=0) != fit(planted(0), 300, 200, seed=1)


def test_shuffled_scores_have_no_slope_and_their_p_is_uniform():
    values, within = [], 0
    for seed in range(40):
        given = planted(seed)
        shuffled = points(given.frequency, np.random.default_rng(100 + seed).permutation(given.score))
        found = fit(shuffled, 60, 60, seed=seed)
        values.append(found.p)
        assert found.slope_low is not None and found.slope_high is not None
        within += found.slope_low < 0 < found.slope_high
    assert within >= 34  # 38 of 40 are expected at 95 %, with 60 resamples a little fewer
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert 0.4 < fit(points(given.frequency, shuffled.score), 10, 200, 0).binned_null < 0.95


def test_two_test_sets_that_differ_make_a_correlation_but_no_slope_within():
    draw = np.random.default_rng(4)
    f = np.round(10 ** np.concatenate([draw.uniform(0, 2, 300), draw.uniform(3, 5, 300)]))
    score = np.concatenate([np.full(300, 10.0), np.full(300, 60.0)]) + draw.normal(0, 5, 600)
    found = fit(points(f, score, ["hard"] * 300 + ["easy"] * 300), 300, 200, seed=0)
    assert found.r is not None and found.r > 0.5
    assert found.slope_low is not None and found.slope_high is not None
    assert found.slope_low < 0 < found.slope_high and found.p_within is not None and found.p_within > 0.01
    x, sets = np.log10(f), np.repeat([0, 1], 300)
    design = np.stack([x, sets == 0, sets == 1], axis=1).astype(float)
    assert found.slope == pytest.approx(np.linalg.lstsq(design, score, rcond=None)[0][0])
    assert found.slope_raw is not None and found.slope_raw > 10


def test_the_bootstrap_is_clustered_by_concept():
    """Each concept ten times: the interval is that of the concepts, not ten times as sure."""
    given = planted(1)
    tenfold = points(
        np.tile(given.frequency, 10),
        np.tile(given.score, 10),
        [f"set {number // 400}" for number in range(4000)],
        given.concept * 10,
    )
    one, ten = fit(given, 300, 1, seed=0), fit(tenfold, 300, 1, seed=0)
    assert ten.slope == pytest.approx(one.slope)
    assert ten.slope_low == pytest.approx(one.slope_low) and ten.slope_high == pytest.approx(one.slope_high)


def test_zeros_stand_apart():
    found = fit(points(np.array([0, 0, 1, 10, 100]), np.array([5.0, 7.0, 10.0, 20.0, 30.0])), 20, 20, 0)
    assert (found.zero, found.zero_mean, found.slope) == (2, 6.0, pytest.approx(10.0))
    assert found.r == pytest.approx(1.0) and found.r_zeros is not None and found.r_zeros < 1
    few = fit(points(np.array([0, 3]), np.array([5.0, 7.0])), 20, 20, 0)
    assert few.r is None and few.slope is None and few.p is None and few.binned.r is None
    with pytest.raises(InputError, match="no concept is both counted and measured"):
        fit(points(np.zeros(0), np.zeros(0)), 1, 1, 0)


def transcribed(f: np.ndarray, y: np.ndarray, n: int, low: int, high: int) -> tuple[float, float, list[float]]:
    """The paper's computation in plain loops, with empty bins left out."""
    x = [np.log(max(value, 1)) for value in f]
    b = [min(x) + (max(x) - min(x)) * j / (n - 1) for j in range(n)]
    b[-1] = max(x)
    members: list[list[float]] = [[] for _ in range(n)]
    for value, score in zip(x, y, strict=True):
        members[next(j for j in range(n) if value <= b[j])].append(score)
    kept = [(b[j], sum(members[j]) / len(members[j])) for j in range(low, n - high) if members[j]]
    r = stats.pearsonr([edge for edge, _ in kept], [mean for _, mean in kept])
    return r[0], r[1], [float(len(each)) for each in members]


@pytest.mark.parametrize(("bins", "trim"), [(12, (1, 1)), (12, (2, 1)), (7, (0, 0))])
def test_the_paper_s_binned_r_is_that_of_a_transcription_with_an_empty_bin(bins, trim):
    draw = np.random.default_rng(bins)
    f = np.concatenate([np.zeros(50), np.round(10 ** draw.uniform(0.1, 3, 300)), [9e6, 8e6]])
    y = 5 + 4 * np.log10(np.maximum(f, 1)) + draw.normal(0, 3, len(f))
    found = paper_binned(f, y, bins, trim)
    r, p, sizes = transcribed(f, y, bins, *trim)
    assert 0 in found.sizes and found.sizes == sizes
    assert found.r == pytest.approx(r) and found.p == pytest.approx(p)


def published_rows() -> list[dict[str, str]]:
    """The table that a variable names; without it, the test is skipped."""
    path = os.environ.get(REPLAY)
    if not path or not Path(path).is_file():
        pytest.skip(f"{REPLAY} names no table")
    return list(csv.DictReader(Path(path).read_text("utf-8").splitlines()))


@pytest.mark.slow
def test_published_counts_give_the_figures_of_the_docs():
    """docs/concepts.md has them beside the paper's. The table is not shipped; a variable names it."""
    rows = published_rows()
    score = np.array([float(row["accuracy_percent"]) for row in rows])
    expected = {  # binned, all bins, r with zeros, within with zeros, r, within, spearman, raw and adjusted slope
        "text": (0.9245, 0.8904, 0.4627, 0.3368, 0.3485, 0.2794, 0.363, 7.133, 5.387),
        "image": (0.9636, 0.8416, 0.5307, 0.3737, 0.4625, 0.3692, 0.535, 9.615, 8.137),
        "both": (0.9626, 0.9187, 0.6075, 0.5020, 0.4117, 0.3914, 0.445, 9.978, 9.741),
    }
    for side, figures in expected.items():
        given = Points(
            [row["concept"] for row in rows],
            [row["test_set"] for row in rows],
            np.array([int(row[f"{side}_count"]) for row in rows]),
            score,
            np.ones(len(rows)),
        )
        found = fit(given, 200, 100, seed=0)
        measured = (
            found.binned.r, found.binned.r_all, found.r_zeros, found.r_within_zeros, found.r, found.r_within,
            found.spearman, found.slope_raw, found.slope,
        )  # fmt: skip
        assert measured == pytest.approx(figures, abs=6e-4), side
        assert found.slope_low is not None and found.slope is not None and found.slope_low > 0.8 * found.slope
        assert found.p == found.p_within == 1 / 101
        assert found.binned_null is not None and 0.6 < found.binned_null < 0.8


@pytest.mark.slow
def test_the_set_that_the_table_lacks_is_what_the_published_slopes_need():
    """ImageNet-Sketch has ImageNet's counts. At 0.7 times its accuracies both slopes are those of all 4,469 points."""
    rows = published_rows()
    again = [row for row in rows if row["test_set"] == "imagenet"]
    sets = [row["test_set"] for row in rows] + ["sketch"] * len(again)
    score = [float(row["accuracy_percent"]) for row in rows] + [0.7 * float(row["accuracy_percent"]) for row in again]
    assert len(again) == 1000
    for side, adjusted in {"image": 7.5, "both": 8.8}.items():
        frequency = np.array([int(row[f"{side}_count"]) for row in [*rows, *again]])
        names = [row["concept"] for row in [*rows, *again]]
        found = fit(Points(names, sets, frequency, np.array(score), np.ones(len(sets))), 2, 2, seed=0)
        assert found.slope is not None and round(found.slope, 1) == adjusted
