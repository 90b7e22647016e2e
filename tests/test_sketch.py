"""The small plot on Dagster's pages: short enough to be shown in place, and drawn to scale."""

from __future__ import annotations

import base64
import math
import random
import re
from xml.etree import ElementTree

import pytest

from flame_core.sketch import sketch

SHOWN_IN_PLACE = 1000  # characters: from these on Dagster shows a link


def drawn(values: list[float]) -> tuple[list[tuple[int, int]], list[str]]:
    """(the curve's points, the texts) of a sketch."""
    found = re.fullmatch(r"!\[loss\]\(data:image/svg\+xml;base64,(.*)\)", sketch("loss", values, "steps"))
    assert found
    root = ElementTree.fromstring(base64.b64decode(found[1]))
    path = [each.get("d", "") for each in root if each.tag.endswith("path")][1]
    x, y, *moves = (int(number) for number in re.findall(r"-?\d+", path))
    points = [(x, y)]
    for dx, dy in zip(moves[::2], moves[1::2], strict=True):
        points.append((points[-1][0] + dx, points[-1][1] + dy))
    return points, [str(each.text) for each in root if each.tag.endswith("text")]


def test_it_is_drawn_to_scale_and_says_its_range() -> None:
    points, texts = drawn([4.0, 3.0, 2.0, 3.0])
    assert points == [(44, 8), (49, 44), (54, 80), (59, 44)]  # 8 is the top, 80 the bottom
    assert texts == ["4", "2", "4 steps"]


def test_neighbours_of_a_long_curve_are_averaged() -> None:
    points, texts = drawn([float(step // 10) for step in range(560)])
    assert len(points) == 56 and points[0][1] == 80 and points[-1][1] == 8
    assert texts == ["55", "0", "560 steps"]


@pytest.mark.parametrize("count", [1, 2, 100, 123_456])
def test_it_is_short_enough_to_be_shown_in_place(count: int) -> None:
    draw = random.Random(1)
    assert len(sketch("loss", [draw.uniform(-1e5, 1e5) for _ in range(count)], "steps")) < SHOWN_IN_PLACE


@pytest.mark.parametrize("values", [[], [math.nan], [2.0, math.inf], [1.0, 1.0]])
def test_what_cannot_be_drawn_is_left_out(values: list[float]) -> None:
    assert len({y for _, y in drawn(values)[0]}) == 1
