from __future__ import annotations

import pytest

from flame_core.training.utilisation import Utilisation


def test_the_rate_is_that_between_steps_and_the_first_does_not_count():
    times = iter([100.0, 102.0, 103.0])
    meter = Utilisation(step_flops=3e12, peak=10e12, clock=lambda: next(times))
    assert meter.after_step() == {}
    assert meter.after_step() == pytest.approx({"tflops": 1.5, "mfu": 0.15})
    assert meter.after_step() == pytest.approx({"tflops": 2.0, "mfu": 0.2})


def test_a_slow_beginning_is_forgotten():
    times = iter([0.0, 1000.0, *(1000.0 + step for step in range(1, 60))])
    meter = Utilisation(step_flops=1e12, peak=2e12, clock=lambda: next(times))
    for _ in range(60):
        last = meter.after_step()
    assert last == pytest.approx({"tflops": 1.0, "mfu": 0.5})
