"""Charts as SVG: readable in light and dark mode, scalable, small, and the same bytes for the same numbers.

A chart is 460 units wide, so that two fit side by side on a desktop and one fills a phone. Colours come from
`templates/charts.css`, which is part of the report's style sheet and is embedded in a standalone chart.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

WIDTH = 460
_POINTS = 240  # most points of a curve; longer ones are averaged


@dataclass(frozen=True)
class Bar:
    """A value between 0 and 1, with interval, chance and ceiling for comparison."""

    label: str
    value: float
    low: float
    high: float
    chance: float | None = None
    ceiling: float | None = None
    main: bool = False  # drawn in the accent colour
    published: bool = False  # a published figure, without an interval


def bar_chart(bars: Sequence[Bar], title: str, labels: int = 128) -> str:
    """Horizontal bars in the given order, with interval, chance (a line) and ceiling (a diamond).

    `labels` is the width of the labels; published figures are outlined.
    """
    left, right, row, top = labels, 52, 22, 6
    reach = max([0.01, *(max(bar.high, bar.ceiling or 0.0, bar.chance or 0.0) for bar in bars)])
    ticks = nice_ticks(0.0, reach, 4)
    span = max(reach, ticks[-1])
    bottom = top + row * len(bars)
    svg = new_svg(bottom + 24, title)

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * value / span

    for tick in ticks:
        add_line(svg, x(tick), top, x(tick), bottom, "grid")
        add_text(svg, x(tick), bottom + 16, f"{tick * 100:g} %", "tick middle")
    for index, bar in enumerate(bars):
        y = top + row * index + row / 2
        group = ET.SubElement(svg, "g")
        ET.SubElement(group, "title").text = _describe(bar)
        add_text(
            group, left - 8, y + 4, shortened(bar.label, letters(labels)), "name end" + (" strong" if bar.main else "")
        )
        width = max(x(bar.value) - left, 0.5)
        style = "bar quoted" if bar.published else "bar main" if bar.main else "bar"
        add_element(group, "rect", x=left, y=y - 7, width=width, height=14, rx=2, class_=style)
        if not bar.published:
            add_line(group, x(bar.low), y, x(bar.high), y, "interval")
        if bar.ceiling is not None:
            at = x(bar.ceiling)
            add_element(group, "path", d=f"M{_n(at)} {_n(y - 5)}l5 5l-5 5l-5 -5z", class_="ceiling")
        if bar.chance is not None:
            add_line(group, x(bar.chance), y - 10, x(bar.chance), y + 10, "chance")
        add_text(group, WIDTH, y + 4, f"{bar.value * 100:.1f} %", "value end")
    add_line(svg, left, top, left, bottom, "axis")
    return ET.tostring(svg, "unicode")


def line_chart(xs: Sequence[float], ys: Sequence[float], title: str, x_title: str) -> str:
    """One curve; a long one is averaged to at most 240 points, and a noisy one gets a smoothed line on top."""
    left, right, top, height = 62, 12, 8, 210
    bottom = top + height - 38
    x_values, y_values = _averaged(np.asarray(xs, float)), _averaged(np.asarray(ys, float))
    x_end = float(x_values.max())
    x_ticks = nice_ticks(0.0, x_end, 4)
    low, high = float(y_values.min()), float(y_values.max())
    y_ticks = nice_ticks(low if high / 2 < low < high else min(0.0, low), high, 4)  # avoids a mostly empty axis
    svg = new_svg(top + height, title)

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * value / max(x_end, 1e-12)

    y_low, y_high = y_ticks[0], y_ticks[-1]

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - y_low) / (y_high - y_low)

    for tick in y_ticks:
        add_line(svg, left, y(tick), WIDTH - right, y(tick), "grid")
        add_text(svg, left - 8, y(tick) + 4, f"{tick:.3g}", "tick end")
    for tick in x_ticks:
        if tick <= x_end:
            add_text(svg, x(tick), bottom + 16, f"{tick:,.0f}", "tick middle")
    add_text(svg, (left + WIDTH - right) / 2, bottom + 32, x_title, "tick middle")
    smooth = _smooth(y_values)
    shown = [(y_values, "curve faint"), (smooth, "curve")] if _noisy(y_values, smooth) else [(y_values, "curve")]
    for values, kind in shown:
        points = " ".join(f"{_n(x(a))},{_n(y(b))}" for a, b in zip(x_values, values, strict=True))
        add_element(svg, "polyline", points=points, class_=kind)
    add_line(svg, left, bottom, WIDTH - right, bottom, "axis")
    return ET.tostring(svg, "unicode")


def standalone(svg: str) -> bytes:
    """A chart as a separate file, with its colours and a size, in case the page that shows it sets none."""
    root = ET.fromstring(svg)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.update(width=width, height=height)
    style = ET.Element("style")
    style.text = stylesheet("charts.css") + "svg { background: var(--surface); }"
    root.insert(0, style)
    ET.register_namespace("", "http://www.w3.org/2000/svg")
    return ET.tostring(root, "utf-8", xml_declaration=True) + b"\n"


def stylesheet(name: str) -> str:
    """The content of a style sheet in the templates."""
    return (files("flame_core.pages") / "templates" / name).read_text("utf-8")


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round steps that cover [low, high]."""
    rough = max(high - low, 1e-12) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _averaged(values: np.ndarray) -> np.ndarray:
    if len(values) <= _POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, _POINTS)])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over about a fifteenth of the curve, shorter at its ends."""
    last = len(values) - 1
    halves = [min(len(values) // 30, i, last - i) for i in range(len(values))]
    return np.array([values[i - half : i + half + 1].mean() for i, half in enumerate(halves)])


def _noisy(values: np.ndarray, smooth: np.ndarray) -> bool:
    """Whether the values often jump from one side of the smoothed line to the other."""
    side = np.sign(values - smooth)
    return bool(np.mean(side[1:] * side[:-1] < 0) > 0.2) if len(values) > 1 else False


def _describe(bar: Bar) -> str:
    interval = "published" if bar.published else f"interval {bar.low:.1%} to {bar.high:.1%}"
    parts = [f"{bar.label}: {bar.value:.1%} ({interval})"]
    if bar.chance is not None:
        parts.append(f"chance {bar.chance:.1%}")
    if bar.ceiling is not None:
        parts.append(f"text ceiling {bar.ceiling:.1%}")
    return ", ".join(parts)


def letters(width: float) -> int:
    """How many letters of a label fit into a width."""
    return int(width / 7.4)


def shortened(label: str, limit: int = 16) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"


def _n(value: float) -> str:
    return f"{value:.1f}"


def new_svg(height: float, title: str) -> ET.Element:
    return add_element(
        None, "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {_n(height)}", class_="chart",
        role="img", aria_label=title,
    )  # fmt: skip


def add_element(parent: ET.Element | None, tag: str, **attributes: str | float) -> ET.Element:
    named = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else _n(value)
        for name, value in attributes.items()
    }
    return ET.Element(tag, named) if parent is None else ET.SubElement(parent, tag, named)


def add_line(parent: ET.Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    add_element(parent, "line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def add_text(parent: ET.Element, x: float, y: float, text: str, kind: str) -> None:
    add_element(parent, "text", x=x, y=y, class_=kind).text = text
