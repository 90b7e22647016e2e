"""A chart of values over the layers of several LLMs, which may have different numbers of layers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flame_core.pages.charts import WIDTH, add_element, add_line, add_text, new_svg, nice_ticks
from flame_core.pages.comparison_charts import SERIES, dot_mark, line_mark

_LEFT, _RIGHT, _TOP, _HEIGHT = 52, 14, 10, 250


@dataclass(frozen=True)
class LayerDot:
    """A value between 0 and 1 at a layer, with its interval for the description."""

    layer: int
    depth: int  # layers of the LLM
    value: float
    low: float
    high: float


def layer_chart(curves: Mapping[str, Sequence[LayerDot]], chance: float, title: str) -> str:
    """A curve per LLM, in colours by their order, over the share of its layers that a text has passed."""
    svg, bottom = new_svg(_TOP + _HEIGHT, title), _TOP + _HEIGHT - 40
    ticks = nice_ticks(0.0, max([0.01, chance, *(dot.value for dots in curves.values() for dot in dots)]), 4)

    def place(share: float, value: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * share
        return x, bottom - (bottom - _TOP) * value / ticks[-1]

    for tick in ticks:
        _, y = place(0, tick)
        add_line(svg, _LEFT, y, WIDTH - _RIGHT, y, "grid")
        add_text(svg, _LEFT - 8, y + 4, f"{tick * 100:g} %", "tick end")
    for quarter in range(5):
        x, _ = place(quarter / 4, 0)
        add_text(svg, x, bottom + 16, f"{quarter * 25} %", "tick end" if quarter == 4 else "tick middle")
    for number, (name, dots) in enumerate(curves.items()):
        group = add_element(svg, "g", class_=f"series-{number % SERIES}")
        places = [place(dot.layer / dot.depth, dot.value) for dot in dots]
        there = [f"{x:.1f},{y:.1f}" for x, y in places]
        there_and_back = " ".join([*there, *reversed(there)])  # a line in colour
        add_element(group, "polygon", points=there_and_back, class_="area", **line_mark(number))
        for dot, (x, y) in zip(dots, places, strict=True):
            circle = add_element(group, "circle", cx=x, cy=y, r=3, **dot_mark(number))
            ET.SubElement(
                circle, "title"
            ).text = f"{name}, layer {dot.layer} of {dot.depth}: {dot.value:.1%} ({dot.low:.1%} to {dot.high:.1%})"
    (left, y), (right, _) = place(0, chance), place(1, chance)
    add_line(svg, left, y, right, y, "chance")
    add_text(svg, (_LEFT + WIDTH - _RIGHT) / 2, bottom + 34, "layers passed, of those that the LLM has", "tick middle")
    add_line(svg, _LEFT, bottom, WIDTH - _RIGHT, bottom, "axis")
    return ET.tostring(svg, "unicode")
