"""Charts of several models: dots per row (languages, benchmarks), and a radar over many data sets."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flame_core.pages.charts import WIDTH, add_element, add_line, add_text, letters, new_svg, nice_ticks, shortened

SERIES = 6  # colours; a seventh series has the first colour again, with hollow dots and dashed lines
_ROW = 20
_HOLLOW = "fill: var(--surface); stroke: var(--series); stroke-width: 2.5"
_DASHED = "stroke-dasharray: 5 4"


@dataclass(frozen=True)
class DotRow:
    """One row: values between 0 and 1 by series number, and a published figure as (model, value)."""

    label: str
    values: Mapping[int, float]
    quoted: tuple[str, float] | None = None
    chance: float | None = None
    names: Sequence[str] = field(default_factory=list)  # of the series, for the description


def dot_mark(series: int) -> dict[str, str]:
    """Attributes of a series' dot; twelve series look different, the thirteenth like the first."""
    look = {"class_": f"dot series-{series % SERIES}"}
    return look if series // SERIES % 2 == 0 else {**look, "style": _HOLLOW}


def line_mark(series: int) -> dict[str, str]:
    """Attributes of a series' line."""
    return {"style": _DASHED} if series // SERIES % 2 else {}


def legend_marks(count: int) -> list[dict[str, str]]:
    """How the dots of `count` series look, for a page's legend."""
    return [{"style": "", **dot_mark(number)} for number in range(count)]


def dot_chart(rows: Sequence[DotRow], title: str, labels: int = 128) -> str:
    """Rows in the given order, with a dot per series and a diamond for the published figure.

    `labels` is the width of the labels.
    """
    top, right = 6, 26
    marks = [value for row in rows for value in [*row.values.values(), row.chance or 0, (row.quoted or ("", 0))[1]]]
    ticks = nice_ticks(0.0, max(0.01, *marks), 4)
    bottom = top + _ROW * len(rows)
    svg = new_svg(bottom + 24, title)

    def x(value: float) -> float:
        return labels + (WIDTH - labels - right) * value / ticks[-1]

    for tick in ticks:
        add_line(svg, x(tick), top, x(tick), bottom, "grid")
        add_text(svg, x(tick), bottom + 16, f"{tick * 100:g} %", "tick middle")
    for index, row in enumerate(rows):
        y = top + _ROW * index + _ROW / 2
        group = ET.SubElement(svg, "g")
        ET.SubElement(group, "title").text = _described(row)
        add_text(group, labels - 8, y + 4, shortened(row.label, letters(labels)), "name end")
        add_line(group, labels, y, WIDTH - right, y, "grid")
        if row.chance is not None:
            add_line(group, x(row.chance), y - 6, x(row.chance), y + 6, "chance")
        if row.quoted:
            at = x(row.quoted[1])
            add_element(group, "path", d=f"M{at:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z", class_="quote")
        for series, value in row.values.items():
            add_element(group, "circle", cx=x(value), cy=y, r=4.5, **dot_mark(series))
    add_line(svg, labels, top, labels, bottom, "axis")
    return ET.tostring(svg, "unicode")


def radar_chart(axes: Sequence[str], series: Sequence[Sequence[float]], title: str) -> str:
    """One polygon per series over three or more axes, all from 0 to the tick above the largest value."""
    height, radius = 340.0, 132.0
    middle = (WIDTH / 2, height / 2)
    reach = nice_ticks(0.0, max(0.01, *(value for values in series for value in values)), 4)
    svg = new_svg(height, title)

    def place(axis: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * axis / len(axes) - math.pi / 2
        at = radius * value / reach[-1]
        return middle[0] + at * math.cos(angle), middle[1] + at * math.sin(angle)

    def ring(values: Sequence[float]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*place(axis, value)) for axis, value in enumerate(values))

    for tick in reach[1:]:
        add_element(svg, "polygon", points=ring([tick] * len(axes)), class_="web")
        if tick < reach[-1]:
            add_text(svg, middle[0] + 4, place(0, tick)[1] - 2, f"{tick * 100:g} %", "tick")
    for axis, name in enumerate(axes):
        end = place(axis, reach[-1])
        add_line(svg, *middle, *end, "grid")
        outside = place(axis, reach[-1] * 1.08)
        side = "end" if outside[0] < middle[0] - 5 else "middle" if outside[0] < middle[0] + 5 else "begin"
        add_text(svg, outside[0], outside[1] + 4, shortened(name), f"name {side}")
    for number, values in enumerate(series):
        look = f"area series-{number % SERIES}"
        add_element(svg, "polygon", points=ring(values), class_=look, **line_mark(number))
    return ET.tostring(svg, "unicode")


def _described(row: DotRow) -> str:
    parts = [f"{row.names[series]} {value:.1%}" for series, value in row.values.items()]
    if row.quoted:
        parts.append(f"published: {row.quoted[0]} {row.quoted[1]:.1%}")
    return f"{row.label}: {', '.join(parts)}"
