"""Compares recipes by their headline metrics, and tests whether a difference is more than chance.

All recipes are measured on the same pictures, so a difference has its own interval, from the paired results on each
picture. It is narrower than those of the two metrics, which share the chance in choosing the split. A difference whose
interval contains zero is "within the interval": these pictures cannot distinguish the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flame_core.errors import InputError
from flame_core.gates import Check
from flame_core.language_names import language_name
from flame_core.measuring.estimates import means_of
from flame_core.measuring.intervals import Mean, difference_interval, mean_of
from flame_core.measuring.measures import OTHERS
from flame_core.measuring.results import Results
from flame_core.pages.benchmark_section import benchmark_section
from flame_core.pages.charts import Bar, bar_chart
from flame_core.pages.render import render
from flame_core.pages.report import WAYS
from flame_core.suite.benchmark_results import BenchmarkResult

_DIGITS = 6
_PARTS = {"value": "", "low": "/low", "high": "/high"}


def compare(results: Sequence[Results], confidence: float) -> dict[str, Any]:
    """The comparison of recipes with the first of them.

    Returns:
        `baseline`, `pictures`, and `recipes`: per recipe and headline metric `value`, `low`, `high`; for all except
        the baseline also `difference` with `difference_low`, `difference_high` and `within_interval`.

    Raises:
        InputError: the recipes were not evaluated on the same pictures and metrics.
    """
    first = results[0]
    for other in results[1:]:
        if (other.split, other.headline) != (first.split, first.headline):
            raise InputError(
                f"recipes {first.recipe} and {other.recipe} were not evaluated on the same pictures and languages; "
                "run `flame evaluate` for both"
            )
    baseline = _headline_means(first)
    recipes: dict[str, dict[str, dict[str, Any]]] = {}
    for result in results:
        means = _headline_means(result)
        recipes[result.recipe] = rows = {}
        for metric in result.headline:
            rows[metric] = {part: result.metrics[metric + end] for part, end in _PARTS.items()}
            if result is not first:
                low, high = difference_interval(means[metric], baseline[metric], confidence)
                rows[metric] |= {
                    "difference": round(result.metrics[metric] - first.metrics[metric], _DIGITS),
                    "difference_low": round(low, _DIGITS),
                    "difference_high": round(high, _DIGITS),
                    "within_interval": low <= 0 <= high,
                }
    return {"baseline": first.recipe, "pictures": first.pictures, "recipes": recipes}


def check(comparison: dict[str, Any]) -> Check:
    """Whether any recipe differs from the baseline by more than its interval; never blocks."""
    apart = [
        f"{recipe}: {metric}"
        for recipe, metrics in comparison["recipes"].items()
        for metric, row in metrics.items()
        if row.get("within_interval") is False
    ]
    return Check(
        name="recipes_differ",
        passed=bool(apart) or len(comparison["recipes"]) == 1,
        description=f"some headline metric differs from that of {comparison['baseline']} by more than its interval",
        value=apart,
        blocking=False,
    )


def render_comparison(
    comparison: dict[str, Any],
    results: Sequence[Results],
    confidence: float,
    benchmark_results: Mapping[str, Sequence[BenchmarkResult]],
) -> str:
    """The page; `benchmark_results` are those on all benchmarks, by the model's name."""
    first = results[0]
    charts = comparison_charts(comparison, first)
    metrics = [{"name": metric, "title": metric_title(metric), "chart": chart} for metric, chart in charts.items()]
    chances = {metric: first.metrics.get(chance_of(metric)) for metric in first.headline}
    return render(
        "comparison.html.j2",
        comparison=comparison,
        metrics=metrics,
        chances=chances,
        confidence=confidence,
        section=benchmark_section(benchmark_results),
    )


def comparison_charts(comparison: dict[str, Any], first: Results) -> dict[str, str]:
    """{headline metric: chart with one bar per recipe, the `first` in the accent colour}."""
    return {
        metric: bar_chart(
            [
                Bar(
                    recipe, row[metric]["value"], row[metric]["low"], row[metric]["high"],
                    first.metrics.get(chance_of(metric)), main=recipe == first.recipe,
                )
                for recipe, row in comparison["recipes"].items()
            ],
            metric_title(metric),
        )
        for metric in first.headline
    }  # fmt: skip


def metric_title(metric: str) -> str:
    """`English, picture → text, recall@10` for `retrieval/en/image_to_text/recall@10`."""
    match metric.split("/"):
        case ["retrieval", language, direction, recall]:
            who = "Unseen languages" if language == OTHERS else language_name(language)
            way = next(title for name, title in WAYS.items() if name == direction)
            return f"{who}, {way.lower()}, {recall}"
        case ["classification", top]:
            return f"Zero-shot class, {top.replace('top', 'top-')}"
        case ["benchmarks", benchmark, language, name]:
            return f"{benchmark}, {language}, {name}"
        case _:
            return metric


def chance_of(metric: str) -> str:
    """The key of a metric's chance level."""
    head, _, tail = metric.rpartition("/")
    return f"{head}/chance/{tail}"


def _headline_means(result: Results) -> dict[str, Mean]:
    """{metric: its mean}."""
    means = means_of(result.outcomes, result.pictures)
    return {metric: mean_of([means[member] for member in members]) for metric, members in result.headline.items()}
