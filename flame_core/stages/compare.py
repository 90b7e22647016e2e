"""compare: the reports of all recipes and the baselines -> `data/comparison/`.

Files: comparison.json, comparison.html, checks.json.
"""

from __future__ import annotations

from functools import partial

from flame_core import gates
from flame_core.digest import json_bytes
from flame_core.layout import Layout
from flame_core.measuring.results import METRICS, OUTCOMES, RESULTS, read_results
from flame_core.pages.charts import standalone
from flame_core.pages.compare import check, compare, comparison_charts, metric_title, render_comparison
from flame_core.params import Params
from flame_core.reporting import facts, picture
from flame_core.suite.benchmark_results import INDEX, measured_baselines, read_benchmark_results
from flame_core.tracking.history import show_comparison
from flame_core.verification import verify
from flame_core.work import gather

COMPARISON, PAGE = "comparison.json", "comparison.html"


def run(params: Params, layout: Layout) -> None:
    """Compare all recipes and baselines of `params` with the first recipe."""
    for recipe in params.recipes:
        gates.require(layout.report(recipe))
    gates.require(layout.baselines)
    baselines = measured_baselines(params, layout)
    read = [METRICS, RESULTS, OUTCOMES, INDEX]
    reports = {layout.report(recipe): read for recipe in params.recipes}
    verified = verify({**reports, layout.baselines: [f"{name}/{file}" for name in baselines for file in read]})
    folders = {recipe: layout.report(recipe) for recipe in params.recipes}
    folders |= {name: layout.baselines / name for name in baselines}
    results = [read_results(folder) for folder in folders.values() if (folder / METRICS).is_file()]
    benchmark_results = {name: read_benchmark_results(folder) for name, folder in folders.items()}
    comparison = compare(results, params.evaluate.confidence)
    page = render_comparison(comparison, results, params.evaluate.confidence, benchmark_results)
    checks = [check(comparison)]
    contents = {
        COMPARISON: json_bytes(comparison),
        PAGE: page.encode(),
        gates.CHECKS: gates.to_bytes(checks),
    }
    gather(layout.comparison, layout.state, {}, contents)
    facts("compare", {"models": ", ".join(folders), "page": layout.comparison / PAGE, "verified": verified})
    gates.warn(checks)
    show_comparison(params, layout)
    for metric, chart in comparison_charts(comparison, results[0]).items():
        picture(metric_title(metric), partial(standalone, chart), "svg+xml")
