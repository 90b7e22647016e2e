"""Hours as plans show them."""

from __future__ import annotations

import pytest

from flame_core.hours import hours_at, hours_text


@pytest.mark.parametrize(
    "hours, text",
    [(0.0, "0"), (2e-5, "0.0000"), (0.00123, "0.0012"), (0.5, "0.50"), (1.04, "1.0"), (10.4, "10"), (6_766.2, "6,766")],
)
def test_hours_have_two_digits_and_no_exponent(hours: float, text: str):
    assert hours_text(hours) == text


def test_devices_share_the_work():
    assert hours_at(3.6e18, 100) == "10 at 100 TFLOP/s" and hours_at(3.6e18, 100, 4) == "2.5 at 4 x 100 TFLOP/s"
