"""Groups of measures of which one has no query: a class without a measured picture."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.evaluation.bootstrap import Bootstrap
from flame_core.evaluation.estimates import Estimates
from flame_core.params import BootstrapParams


def test_the_mean_over_classes_leaves_out_one_without_a_picture():
    estimates = Estimates(4)
    estimates.add("class/toys", np.array([1.0, 0.0]), np.array([0, 1]), hidden=True)
    estimates.add("class/boats", np.array([1.0, 1.0]), np.array([2, 3]), hidden=True)
    estimates.add("class/houses", np.array([]), np.array([], int), hidden=True)
    estimates.groups["mean_per_class"] = ["class/toys", "class/boats", "class/houses"]
    found = estimates.intervals(Bootstrap(4, BootstrapParams(samples=200)))
    assert found["mean_per_class"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["mean_per_class/low"] <= found["mean_per_class"] <= found["mean_per_class/high"]
