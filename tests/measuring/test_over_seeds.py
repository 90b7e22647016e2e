"""Figures of several seeds."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_ind

from flame_core.measuring.over_seeds import difference, mean_and_deviation, standard_error

SOME, OTHERS = [10.0, 11.0, 12.0], [8.0, 12.0]


def test_the_deviation_is_of_a_sample_and_needs_two_values():
    assert mean_and_deviation(SOME) == "11.0 ± 1.0"
    assert mean_and_deviation([10.0]) == "10.0"


def test_a_difference_in_standard_errors_is_welchs_t():
    t = ttest_ind(SOME, OTHERS, equal_var=False).statistic
    assert 1 / standard_error(SOME, OTHERS) == pytest.approx(t)
    assert difference(SOME, OTHERS) == f"+1.0, {t:+.1f} SE"


@pytest.mark.parametrize("others", [[], [10.0], [10.0, 10.0]])
def test_without_any_spread_there_is_no_difference(others):
    assert difference([10.0, 10.0], others) == ""
