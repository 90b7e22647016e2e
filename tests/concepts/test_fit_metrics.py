"""Names and values of a fit's metrics in MLflow."""

from __future__ import annotations

import numpy as np

from flame_core.concepts.concept_counts import Misalignment
from flame_core.concepts.fit_metrics import fit_metrics
from flame_core.concepts.frequency_fit import Points, fit


def points(count: int) -> Points:
    frequency = 10.0 ** np.linspace(1, 5, count) if count else np.zeros(0)
    names = [f"c{number}" for number in range(count)]
    return Points(names, ["set"] * count, frequency, 10 + 7 * np.log10(np.maximum(frequency, 1)), np.ones(count))


def test_the_fit_and_the_data_by_definition():
    found = fit(points(40), resamples=5, permutations=5, seed=0)
    metrics = fit_metrics({"classes": found}, Misalignment(200, 150, 120, 30, 50))
    assert metrics == {
        "freq/r_binned/classes": found.binned.r,
        "freq/r_concept/classes": found.r,
        "freq/r_within/classes": found.r_within,
        "freq/slope_decade/classes": found.slope,
        "freq/ci_lo/classes": found.slope_low,
        "freq/ci_hi/classes": found.slope_high,
        "misalign/count/published": 30.0,
        "misalign/rate/published": 0.15,
        "misalign/count/algorithm": 50.0,
        "misalign/rate/algorithm": 0.25,
    }
    assert found.slope is not None and abs(found.slope - 7) < 1e-9


def test_what_is_not_defined_is_left_out():
    found = fit(points(1), resamples=5, permutations=5, seed=0)
    assert found.slope is None and fit_metrics({"retrieval": found}, None).keys() <= {"freq/r_binned/retrieval"}
