"""Hours as plans show them."""

from __future__ import annotations

import math

from flame_core.cores import CORE_TFLOPS

_DECIMALS = 4  # less than a second is not told


def hours_at(flops: float, tflops: float, devices: int = 1) -> str:
    """Hours of devices for so many FLOPs, with their rate."""
    rate = f"{devices} x {tflops:g}" if devices > 1 else f"{tflops:g}"
    return f"{hours_text(flops / (devices * tflops * 1e12) / 3600)} at {rate} TFLOP/s"


def core_hours(flops: float) -> str:
    """Hours of one core for so many FLOPs."""
    return hours_text(flops / (CORE_TFLOPS * 1e12) / 3600)


def hours_text(hours: float) -> str:
    """Hours with two digits, or all before the point, and no exponent."""
    if hours >= 10:
        return f"{hours:,.0f}"
    digits = 1 - math.floor(math.log10(hours)) if hours > 0 else 0
    return f"{hours:.{min(digits, _DECIMALS)}f}"
