"""Charts with logarithmic axes: counts over ranks, and values over counts."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.pages.charts import WIDTH, add_element, add_line, add_text, new_svg, nice_ticks

_LEFT, _RIGHT, _TOP, _HEIGHT = 62, 14, 20, 250
_CURVE_POINTS = 200


@dataclass(frozen=True)
class Point:
    """A dot at a count (0 has a place of its own) with a value; `name` is written beside it if it is not empty."""

    count: int
    value: float
    title: str
    name: str = ""
    strong: bool = False


def log_line_chart(curves: Mapping[str, np.ndarray], title: str, x_title: str, y_title: str) -> str:
    """Curves of positive values over their rank, both logarithmic; each is named at its beginning."""
    svg, bottom = new_svg(_TOP + _HEIGHT, title), _TOP + _HEIGHT - 40
    shown = {name: values for name, values in curves.items() if len(values)}
    x_end = max([10.0, *(float(len(values)) for values in shown.values())])
    y_end = max([10.0, *(float(values.max()) for values in shown.values())])

    def place(rank: float, value: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * math.log10(rank) / math.log10(x_end)
        return x, bottom - (bottom - _TOP) * math.log10(value) / math.log10(y_end)

    for power in range(math.floor(math.log10(y_end)) + 1):
        _, y = place(1, 10**power)
        add_line(svg, _LEFT, y, WIDTH - _RIGHT, y, "grid")
        add_text(svg, _LEFT - 8, y + 4, f"{10**power:,}", "tick end")
    for power in range(math.floor(math.log10(x_end)) + 1):
        x, _ = place(10**power, 1)
        add_text(svg, x, bottom + 16, f"{10**power:,}", "tick middle")
    for number, (name, values) in enumerate(shown.items()):
        ranks = np.unique(np.geomspace(1, len(values), _CURVE_POINTS).round().astype(int))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(rank, float(values[rank - 1])) for rank in ranks))
        add_element(svg, "polyline", points=points, class_="curve" if number == 0 else "curve faint")
        x, y = place(1.1, float(values[0]))
        add_text(svg, x + 4, y - 7, f"{name} ({y_title})", "tick")
    _axes(svg, bottom, x_title)
    return ET.tostring(svg, "unicode")


def scatter_chart(points: Sequence[Point], line: tuple[float, float] | None, title: str, x_title: str) -> str:
    """Values from 0 to 100 over counts on a logarithmic axis, which begins with a place for 0.

    `line` is (intercept, slope per decade) of a fit.
    """
    svg, bottom = new_svg(_TOP + _HEIGHT, title), _TOP + _HEIGHT - 40
    decades = max(1.0, math.log10(max([10, *(point.count for point in points)])))
    zero = 34  # width of the place for 0
    ticks = nice_ticks(0.0, 100.0, 4)

    def x_of(count: float) -> float:
        if count < 1:
            return _LEFT + zero / 2
        return _LEFT + zero + (WIDTH - _LEFT - zero - _RIGHT) * math.log10(count) / decades

    def y_of(value: float) -> float:
        return bottom - (bottom - _TOP) * min(max(value, 0.0), 100.0) / 100

    for tick in ticks:
        add_line(svg, _LEFT, y_of(tick), WIDTH - _RIGHT, y_of(tick), "grid")
        add_text(svg, _LEFT - 8, y_of(tick) + 4, f"{tick:g} %", "tick end")
    for count in [0, *(10**power for power in range(math.floor(decades) + 1))]:
        add_text(svg, x_of(count), bottom + 16, f"{count:,}", "tick middle")
    for point in points:
        group = add_element(svg, "g", class_="series-0" if point.strong else "series-1")
        ET.SubElement(group, "title").text = point.title
        dot = {"cx": x_of(point.count), "cy": y_of(point.value), "r": 3.2 if point.strong else 2.2}
        add_element(group, "circle", **dot, class_="dot")
    written: list[tuple[float, float]] = []
    for point in points:
        x, y = x_of(point.count), y_of(point.value) - 3
        if point.name and all(abs(y - b) > 12 or abs(x - a) > 90 for a, b in written):  # none over another
            left = x > WIDTH * 0.7
            add_text(svg, x + (-6 if left else 6), y, point.name, "tick end" if left else "tick")
            written.append((x, y))
    if line is not None:
        ends = [(count, line[0] + line[1] * math.log10(count)) for count in (1.0, 10**decades)]
        add_line(svg, x_of(ends[0][0]), y_of(ends[0][1]), x_of(ends[1][0]), y_of(ends[1][1]), "chance")
    _axes(svg, bottom, x_title)
    return ET.tostring(svg, "unicode")


def _axes(svg: ET.Element, bottom: float, x_title: str) -> None:
    add_text(svg, (_LEFT + WIDTH - _RIGHT) / 2, bottom + 34, x_title, "tick middle")
    add_line(svg, _LEFT, bottom, WIDTH - _RIGHT, bottom, "axis")
