"""A curve as an SVG of a few hundred bytes, small enough for Dagster's pages to show it without a click.

Dagster shows Markdown of fewer than 1000 characters in place, and anything longer behind a link.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence

_POINTS, _STEP, _HEIGHT, _LEFT = 56, 5, 72, 44  # of the curve: points, pixels between two, pixels in height, margin


def sketch(name: str, values: Sequence[float], unit: str) -> str:
    """Markdown with a small plot of finite values in equal distances; means of neighbours if there are many.

    Args:
        name: what is plotted.
        values: at least one.
        unit: of the horizontal axis.
    """
    shown = _means([value for value in values if math.isfinite(value)] or [0.0])
    low, high = min(shown), max(shown)
    ys = [round(_HEIGHT * (high - value) / ((high - low) or 1.0)) for value in shown]
    width = _STEP * max(1, len(ys) - 1)
    moves = "".join(f" {_STEP} {after - before}" for before, after in itertools.pairwise(ys)) or f" {width} 0"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + width + 8}" height="100" font-size="11" fill="#888">'
        f'<path d="M{_LEFT} 8v{_HEIGHT}h{width}" fill="none" stroke="#bbb"/>'
        f'<path d="M{_LEFT} {8 + ys[0]}l{moves.replace(" -", "-")[1:]}" fill="none" stroke="#46e" stroke-width="2"/>'
        f'<text y="14">{high:.3g}</text><text y="{8 + _HEIGHT}">{low:.3g}</text>'
        f'<text x="{_LEFT}" y="96">{len(values):,} {unit}</text></svg>'
    )
    return f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _means(values: Sequence[float]) -> list[float]:
    """At most `_POINTS` means over neighbours."""
    count = min(_POINTS, len(values))
    bounds = [len(values) * i // count for i in range(count + 1)]
    return [sum(values[first:end]) / (end - first) for first, end in itertools.pairwise(bounds)]
