from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from flame_core.pages.charts import Bar, bar_chart, line_chart, nice_ticks, standalone

NS = "{http://www.w3.org/2000/svg}"


def elements(svg, tag, kind=None):
    found = ET.fromstring(svg).iter(NS + tag)
    return [element for element in found if kind is None or element.get("class") == kind]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 0.37, [0, 0.1, 0.2, 0.3, 0.4]), (-3, 5, [-4, -2, 0, 2, 4, 6]), (0, 0, None)],
)
def test_ticks_are_round_and_cover(low, high, ticks):
    found = nice_ticks(low, high, 4)
    assert found[0] <= low
    assert found[-1] >= high
    assert ticks is None or found == pytest.approx(ticks)


def test_bars_are_as_long_as_their_values():
    svg = bar_chart([Bar("a", 0.5, 0.4, 0.6, chance=0.1, ceiling=0.9), Bar("b", 0.25, 0.2, 0.3)], "recall")
    long, short = (float(bar.get("width", "0")) for bar in elements(svg, "rect", "bar"))
    assert long == pytest.approx(2 * short, abs=0.1)
    (chance,) = elements(svg, "line", "chance")
    start = float(elements(svg, "rect", "bar")[0].get("x", "0"))
    assert float(chance.get("x1", "0")) - start == pytest.approx(long * 0.1 / 0.5, abs=0.1)
    assert len(elements(svg, "path", "ceiling")) == 1
    assert "chance 10.0%, text ceiling 90.0%" in elements(svg, "title")[0].text


@pytest.mark.parametrize(
    "bar",
    [
        Bar("all", 1.0, 1.0, 1.0, chance=1.0, ceiling=1.0),
        Bar("uncertain", 0.1, 0.0, 0.9),
        Bar("unlucky", 0.1, 0.1, 0.1, chance=0.9),
        Bar("nothing", 0.0, 0.0, 0.0, chance=0.0, ceiling=0.0),
    ],
)
def test_nothing_is_drawn_outside(bar):
    svg = bar_chart([bar], "recall")
    width = float(ET.fromstring(svg).get("viewBox", "").split()[2])
    for line in elements(svg, "line"):
        assert 0 <= float(line.get("x1", "-1")) <= width
        assert 0 <= float(line.get("x2", "-1")) <= width


def test_a_label_is_text_and_never_markup():
    svg = bar_chart([Bar('<script>alert("&")</script>', 0.5, 0.4, 0.6)], '"><script>')
    assert "<script" not in svg
    assert elements(svg, "title")[0].text.startswith('<script>alert("&")</script>')


def test_a_noisy_curve_gets_a_smooth_line_and_a_clean_one_does_not():
    x = np.arange(200)
    clean = np.minimum(x / 20, 1) * np.cos(x / 140)
    assert len(elements(line_chart(x, clean, "rate", "step"), "polyline")) == 1
    noisy = clean + np.random.default_rng(0).normal(size=200) * 0.05
    curves = elements(line_chart(x, noisy, "loss", "step"), "polyline")
    assert [curve.get("class") for curve in curves] == ["curve faint", "curve"]


def test_the_axis_of_a_curve_begins_at_zero_unless_most_of_it_were_empty():
    def labels(values):
        return [float(text.text) for text in elements(line_chart(range(3), values, "loss", "step"), "text", "tick end")]

    assert labels([5.9, 5.2, 5.1]) == [5.0, 5.2, 5.4, 5.6, 5.8, 6.0]
    assert labels([5.9, 3.0, 2.0])[0] == 0
    assert labels([-1.0, 0.0, 1.0])[0] == -1


@pytest.mark.parametrize("count", [1, 2, 240, 5000])
def test_curves_of_any_length(count):
    svg = line_chart(range(count), [3.0 / (i + 1) for i in range(count)], "loss", "step")
    (curve,) = elements(svg, "polyline", "curve")
    assert len(curve.get("points", "").split()) == min(count, 240)


def test_a_file_of_its_own_carries_its_colours_and_is_always_the_same():
    svg = bar_chart([Bar("Grün", 0.5, 0.4, 0.6, 0.1)], "Wiederfinden ü")
    file = standalone(svg)
    assert file == standalone(bar_chart([Bar("Grün", 0.5, 0.4, 0.6, 0.1)], "Wiederfinden ü"))
    root = ET.fromstring(file)
    assert root.tag == NS + "svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"  # else a page draws it at any size
    assert "--accent" in file.decode()
    assert "ns0:" not in file.decode()
