"""The learning rate against its formula."""

from __future__ import annotations

import math

import pytest

from flame_core.stepping.learning_rate import learning_rate


def test_warm_up_rises_linearly_and_the_cosine_ends_near_zero():
    rates = [learning_rate(step, 110, 10, 2.0) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[60] == pytest.approx(1.0)  # half way down
    assert rates[109] == pytest.approx(1.0 + math.cos(math.pi * 99 / 100))


def test_the_cosine_can_fall_from_the_first_step_on():
    for steps, warmup in ((110, 10), (5, 0), (1, 3), (7, 9)):
        rates = [learning_rate(step, steps, warmup + 1, 1.0, falls_from=0) for step in range(steps)]
        for step, rate in enumerate(rates):
            rise, fall = min(1.0, (step + 1) / (warmup + 1)), 0.5 * (1 + math.cos(math.pi * step / steps))
            assert rate == rise * fall
