"""compare: the reports of all recipes -> `data/comparison/` (comparison.json, comparison.html, checks.json)."""

from __future__ import annotations

from functools import partial

from flame_core import gates
from flame_core.digest import json_bytes
from flame_core.evaluation.charts import standalone
from flame_core.evaluation.compare import check, compare, comparison_charts, metric_title, render_comparison
from flame_core.evaluation.results import read_results
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.reporting import facts, picture
from flame_core.work import gather

COMPARISON, PAGE = "comparison.json", "comparison.html"


def run(params: Params, layout: Layout) -> None:
    """Put the recipes of `params` side by side; the first is the baseline."""
    for recipe in params.recipes:
        gates.require(layout.report(recipe))
    results = [read_results(layout.report(recipe)) for recipe in params.recipes]
    comparison = compare(results, params.evaluate.bootstrap)
    page = render_comparison(comparison, results, params.evaluate.bootstrap)
    contents = {
        COMPARISON: json_bytes(comparison),
        PAGE: page.encode(),
        gates.CHECKS: gates.to_bytes([check(comparison)]),
    }
    gather(layout.comparison, layout.state, {}, contents)
    facts("compare", {"recipes": ", ".join(params.recipes), "page": layout.comparison / PAGE})
    for metric, chart in comparison_charts(comparison, results[0]).items():
        picture(metric_title(metric), partial(standalone, chart), "svg+xml")
