"""Overlays on a picture with one cell per patch: the colour of its word, its similarity to a facet, or its weight."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np

from flame_core.pages.charts import add_element
from flame_core.pages.comparison_charts import SERIES

_COVER = 0.65  # highest opacity, so that the picture stays visible


def word_overlay(grid: Sequence[Sequence[str]], words: Sequence[str], title: str) -> str:
    """Cells coloured by word, in the order of `words`; cells with other words stay clear."""
    svg = _svg(len(grid), len(grid[0]), title)
    number = {word: index for index, word in enumerate(words)}
    for y, row in enumerate(grid):
        for x, word in enumerate(row):
            style = f"cell series-{number[word] % SERIES}" if word in number else "cell clear"
            cell = add_element(svg, "rect", x=str(x), y=str(y), width="1", height="1", class_=style)
            ET.SubElement(cell, "title").text = word
    return ET.tostring(svg, "unicode")


def likeness_overlay(cosine: np.ndarray, title: str) -> str:
    """Cells [g, g], from clear at the lowest cosine to most opaque at the highest."""
    return ET.tostring(_heat(cosine, title), "unicode")


def weight_overlay(weights: np.ndarray, title: str) -> str:
    """As `likeness_overlay`, of weights [g, g]; the cell with the largest, the first of equals, has a frame."""
    svg = _heat(weights, title)
    y, x = divmod(int(weights.argmax()), weights.shape[1])
    frame = {"class_": "largest", "fill": "none", "stroke": "#1d1b19", "stroke_width": ".08"}
    add_element(svg, "rect", x=str(x), y=str(y), width="1", height="1", **frame)
    return ET.tostring(svg, "unicode")


def _heat(values: np.ndarray, title: str) -> ET.Element:
    svg = _svg(len(values), values.shape[1], title)
    low, high = float(values.min()), float(values.max())
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            share = (float(value) - low) / max(high - low, 1e-12)
            cell = add_element(
                svg,
                "rect",
                x=str(x),
                y=str(y),
                width="1",
                height="1",
                class_="heat",
                fill_opacity=f"{_COVER * share:.2f}",
            )
            ET.SubElement(cell, "title").text = f"{value:.3f}"
    return svg


def _svg(height: int, width: int, title: str) -> ET.Element:
    box = f"0 0 {width} {height}"
    return add_element(
        None, "svg", xmlns="http://www.w3.org/2000/svg", viewBox=box, class_="cells", role="img", aria_label=title,
        preserveAspectRatio="none",
    )  # fmt: skip
