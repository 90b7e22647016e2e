from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from flame_core.pages.benchmark_section import benchmark_section, metric_name
from flame_core.pages.charts import Bar, bar_chart
from flame_core.pages.comparison_charts import DotRow, dot_chart, radar_chart
from flame_core.pages.render import render
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow
from tests.suite.datasets import benchmark


def marks(svg, kind):
    return [element for element in ET.fromstring(svg).iter() if kind in (element.get("class") or "").split()]


def test_dots_stand_where_their_values_are_and_a_diamond_where_the_published_one_is():
    rows = [
        DotRow("German", {0: 0.5, 1: 0.25}, ("Theirs", 0.4), 0.1, ["a", "b"]),
        DotRow("Te<lugu", {0: 0.0}, names=["a", "b"]),
    ]
    svg = dot_chart(rows, "by language")
    dots = [float(dot.get("cx")) for dot in marks(svg, "dot")]
    left, reach = dots[2], dots[0] - dots[2]
    assert dots[1] - left == pytest.approx(reach / 2, abs=0.2)
    (diamond,) = marks(svg, "quote")
    assert float(re.match(r"M([\d.]+)", diamond.get("d"))[1]) - left == pytest.approx(0.8 * reach, abs=0.2)
    titles = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("title")]
    assert titles[0] == "German: a 50.0%, b 25.0%, published: Theirs 40.0%"


def look(element):
    return element.get("class"), element.get("style")


def test_twelve_models_look_different_and_the_legend_shows_them_as_the_charts_do():
    names = [f"model {number}" for number in range(12)]
    dots = marks(dot_chart([DotRow("German", {n: n / 20 for n in range(12)}, names=names)], "by language"), "dot")
    assert len({look(dot) for dot in dots}) == 12
    areas = marks(radar_chart(["x", "y", "z"], [[n / 20] * 3 for n in range(12)], "three"), "area")
    assert len({look(area) for area in areas}) == 12
    definition = benchmark("retrieval", "captions_jsonl", languages=["en", "de"])
    models = {
        name: [
            result(definition, {"text_retrieval_recall@1": 0.5}),
        ]
        for name in names
    }
    for (each,) in models.values():
        each.rows.append(replace(each.rows[0], language="de"))
    section = benchmark_section(models)
    page = render("comparison.html.j2", comparison={"recipes": {}, "pictures": 0, "baseline": ""}, metrics=[],
                  chances={}, confidence=0.95, section=section)  # fmt: skip
    legend = re.findall(
        r'<circle class="([^"]*)"(?: style="([^"]*)")? cx="7" cy="7" r="5"/></svg><span class="name">([^<]*)', page
    )
    assert [(kind, style or None) for kind, style, _ in legend] == [look(dot) for dot in dots]
    assert [name for _, _, name in legend] == names
    assert "published" not in page


def test_a_radar_reaches_as_far_as_its_values():
    svg = radar_chart(["x", "y", "z"], [[0.4, 0.2, 0.0]], "three")
    (area,) = marks(svg, "area")
    points = [tuple(map(float, point.split(","))) for point in area.get("points").split()]
    middle = points[2]
    assert math.dist(points[0], middle) == pytest.approx(2 * math.dist(points[1], middle), abs=0.3)
    assert points[0][0] == pytest.approx(middle[0], abs=0.1)  # the first axis points up
    assert points[0][1] < middle[1]


def test_published_bars_are_outlined_and_have_no_interval():
    svg = bar_chart([Bar("ours", 0.3, 0.2, 0.4, main=True), Bar("theirs", 0.5, 0.5, 0.5, published=True)], "bars")
    assert len(marks(svg, "quoted")) == 1
    assert len(marks(svg, "interval")) == 1
    assert "theirs: 50.0% (published)" in svg


def result(definition, values, language="en", status="measured", why=""):
    rows = [LanguageRow(language, values, {name: (v, v) for name, v in values.items()}, {}, {})] if values else []
    return BenchmarkResult(definition, status, why, rows)


def test_a_section_says_who_has_what_and_quotes_the_best_of_the_same_protocol():
    quoted = [
        {"model": "A", "percent": {"acc1": 30.0}, "source": "x"},
        {"model": "B", "percent": {"acc1": 36.0}, "source": "y"},
    ]
    definition = benchmark("classification", "clip_benchmark", published=quoted)
    models = {
        "mine": [result(definition, {"acc1": 0.2})],
        "backbone": [result(definition, {}, status="not offered", why="it has no texts")],
    }
    section = benchmark_section(models)
    (row,) = section.rows
    assert [cell.value for cell in row.cells] == [0.2, None]
    assert row.cells[1].why == "it has no texts"
    assert row.best == ("B", 0.36, "y")
    assert len(marks(section.charts[0][1], "quoted")) == 2
    assert section.outlined and not section.diamonds
    assert not section.overview


def test_benchmarks_of_one_title_are_told_apart_by_their_prompt_or_their_name():
    def named(name, **rest):
        definition = benchmark("retrieval", "captions_jsonl", **rest)
        return definition.model_copy(update={"name": name, "title": "Birds"})

    values = {"text_retrieval_recall@1": 0.2, "image_retrieval_recall@1": 0.3}
    facets, single, other = named("birds", prompt="facets"), named("birds.single"), named("mine")
    lost = {
        "skipped": {"captions whose picture is missing": 2},
        "skipped_names": {"captions whose picture is missing": ["a"]},
    }
    results = [replace(result(each, values), **lost) for each in (facets, single)]
    section = benchmark_section({"model": results})
    assert [row.benchmark for row in section.rows] == ["Birds (facets)"] * 2 + ["Birds (single)"] * 2
    assert len({title for title, _ in section.charts}) == 4
    assert [each.title for each in section.skipped] == ["Birds (facets)", "Birds (single)"]
    section = benchmark_section({"model": results, "old": [result(other, {}, status="not available", why="gone")]})
    assert {row.benchmark for row in section.rows} == {"Birds (facets)", "Birds (birds.single)"}
    absent = [result(each, {}, status="not available", why=each.name) for each in (single, other)]
    found = [(each.title, each.why) for each in benchmark_section({"model": absent}).absent]
    assert found == [("Birds (birds.single)", "birds.single"), ("Birds (mine)", "mine")]
    assert [row.benchmark for row in benchmark_section({"model": [results[0]]}).rows] == ["Birds"] * 2


def test_metric_names_for_readers():
    named = {kind: benchmark(kind, "clip_benchmark") for kind in ("retrieval", "choice")}
    assert metric_name(named["retrieval"], "text_retrieval_recall@5") == "picture → text, recall@5"
    assert metric_name(named["choice"], "add_obj/text_acc") == "add_obj, right text"
