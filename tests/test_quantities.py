"""Durations and sizes as people read them."""

from __future__ import annotations

import pytest

from flame_core.quantities import core_time, duration, share_text, size_text, time_at


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.4, "0.4 s"),
        (0.95, "1 s"),
        (99, "99 s"),
        (120, "2 min"),
        (3599, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (35_970, "10 h"),
        (4e7, "11,111 h"),
    ],
)
def test_durations(seconds: float, shown: str):
    assert duration(seconds) == shown


def test_flops_take_time_on_devices_and_on_a_core():
    assert time_at(3.6e18, 100) == "10 h at 100 TFLOP/s" and time_at(3.6e18, 100, 4) == "2 h 30 min at 4 x 100 TFLOP/s"
    assert core_time(5e12) == "2 min"


@pytest.mark.parametrize(("count", "shown"), [(12, "12 bytes"), (4.5e7, "45.0 MB"), (1.354e9, "1.4 GB")])
def test_sizes(count: float, shown: str):
    assert size_text(count) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0.0%"), (3.4e-5, "0.0034%"), (0.0009, "0.09%"), (0.001, "0.1%"), (0.5, "50.0%")]
)
def test_a_tiny_share_is_not_nothing(share: float, shown: str):
    assert share_text(share) == shown
