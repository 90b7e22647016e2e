"""Numbers of a plan, from how people read them."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "min": 60, "h": 3600}
_BYTES = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def hours(text: str) -> float:
    """The hours of `3 h 20 min at 100 TFLOP/s`."""
    found = re.findall(r"([\d.]+) (s|min|h)\b", text.partition(" at ")[0].replace(",", ""))
    return sum(float(value) * _SECONDS[unit] for value, unit in found) / 3600


def gigabytes(text: str) -> float:
    """The GB of `1.4 GB beside the tower`."""
    value, unit = text.split()[:2]
    return float(value) * _BYTES[unit.rstrip(",")] / 1e9
