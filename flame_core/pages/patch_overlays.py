"""Overlays on a picture with one cell per patch: the colour of its word, or its similarity to a facet."""

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
    svg = _svg(len(cosine), cosine.shape[1], title)
    low, high = float(cosine.min()), float(cosine.max())
    for y, row in enumerate(cosine):
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
    return ET.tostring(svg, "unicode")


def _svg(height: int, width: int, title: str) -> ET.Element:
    box = f"0 0 {width} {height}"
    return add_element(
        None, "svg", xmlns="http://www.w3.org/2000/svg", viewBox=box, class_="cells", role="img", aria_label=title,
        preserveAspectRatio="none",
    )  # fmt: skip
