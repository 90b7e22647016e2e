"""Durations and sizes as people read them."""

from __future__ import annotations

from rich.filesize import decimal

from flame_core.cores import CORE_TFLOPS


def duration(seconds: float) -> str:
    """`0.4 s`, `40 s`, `12 min`, `3 h 20 min` or `40 h`."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if 0 < seconds < 0.95 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 10:
        return f"{seconds / 3600:,.0f} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def time_at(flops: float, tflops: float, devices: int = 1) -> str:
    """How long devices take for so many FLOPs, with their rate."""
    rate = f"{devices} x {tflops:g}" if devices > 1 else f"{tflops:g}"
    return f"{duration(flops / (devices * tflops * 1e12))} at {rate} TFLOP/s"


def core_time(flops: float) -> str:
    """How long one core takes for so many FLOPs."""
    return duration(flops / (CORE_TFLOPS * 1e12))


def size_text(count: float) -> str:
    """So many bytes: `512 bytes`, `45.0 MB`, `1.4 GB`."""
    return decimal(round(count))


def share_text(share: float) -> str:
    """A share in percent: `30.5%`, and with two digits if it is tiny, `0.0034%`."""
    return f"{share * 100:.2g}%" if 0 < share < 0.001 else f"{share:.1%}"
