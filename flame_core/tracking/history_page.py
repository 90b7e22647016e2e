"""The history of models as a page: a table, and a chart over time per headline metric."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from flame_core.pages.charts import WIDTH, add_element, add_line, add_text, new_svg, nice_ticks
from flame_core.pages.compare import metric_title
from flame_core.pages.comparison_charts import SERIES, dot_mark, legend_marks, line_mark
from flame_core.pages.render import render
from flame_core.tracking.history import History, MeasuredModel
from flame_core.tracking.registry import CHAMPION

_LABELS = 12  # below the axis


def history_page(history: History, model: str) -> str:
    """A self-contained HTML page; `model` is the name of the registered model."""
    recipes = list(dict.fromkeys(each.recipe for each in history.models))
    metrics = [
        {
            "name": metric,
            "title": metric_title(metric),
            "chart": trend_chart(history.models, metric, recipes, metric_title(metric)),
        }
        for metric in history.metrics
    ]
    marks = legend_marks(len(recipes))
    return render("history.html.j2", history=history, model=model, metrics=metrics, recipes=recipes, marks=marks)


def trend_chart(models: Sequence[MeasuredModel], metric: str, recipes: Sequence[str], title: str) -> str:
    """A metric of the models from the oldest to the newest, coloured by recipe, with intervals.

    A line joins models of one recipe that were measured on the same pictures; the champion has a ring.
    """
    left, right, top, bottom = 46, 16, 10, 190
    shown = [(place, each, each.scores[metric]) for place, each in enumerate(models) if metric in each.scores]
    reach = max([0.01, *(score.high or score.value for _, _, score in shown)])
    ticks = nice_ticks(0.0, reach, 4)
    svg = new_svg(bottom + 26, title)

    def x(place: int) -> float:
        return left + (WIDTH - left - right) * (place + 0.5) / len(models)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / ticks[-1]

    for tick in ticks:
        add_line(svg, left, y(tick), WIDTH - right, y(tick), "grid")
        add_text(svg, left - 8, y(tick) + 4, f"{tick * 100:g} %", "tick end")
    for place, each in enumerate(models):
        if place % -(-len(models) // _LABELS) == 0:
            add_text(svg, x(place), bottom + 16, f"v{each.version}" if each.version else "·", "tick middle")
    for number, recipe in enumerate(recipes):
        look = f"trend series-{number % SERIES}"
        own = [(place, each, score) for place, each, score in shown if each.recipe == recipe]
        for (a, first, one), (b, second, other) in itertools.pairwise(own):
            if first.split == second.split:
                add_element(
                    svg, "line", x1=x(a), y1=y(one.value), x2=x(b), y2=y(other.value), class_=look, **line_mark(number)
                )
    for place, each, score in shown:
        group = ET.SubElement(svg, "g")
        ET.SubElement(group, "title").text = f"{_name(each)}: {score.value:.1%}"
        if score.low is not None and score.high is not None:
            add_line(group, x(place), y(score.low), x(place), y(score.high), "interval")
        if CHAMPION in each.standing:
            add_element(group, "circle", cx=x(place), cy=y(score.value), r=8, class_="ring")
        add_element(group, "circle", cx=x(place), cy=y(score.value), r=4.5, **dot_mark(recipes.index(each.recipe)))
    add_line(svg, left, bottom, WIDTH - right, bottom, "axis")
    return ET.tostring(svg, "unicode")


def _name(each: MeasuredModel) -> str:
    version = f"version {each.version}" if each.version else "no version"
    return f"{each.recipe}, {version}, {each.when:%Y-%m-%d %H:%M}"
