"""Names of metrics in MLflow.

MLflow's pages have one section per folder of a metric's name, in alphabetical order, each of which can be folded;
metrics without a folder come last. So a run has three folders, in the order in which one reads them:

    headline/       the metrics by which models are compared, and chance
    train/          of every step of the training
    whole_report/   all metrics of the report, the headline metrics included

Other stages may add folders of their own (`stage_metrics.py`). Below a folder, dots replace slashes in names of the
report, and `_at_` replaces `@`, which MLflow does not accept:
`retrieval/en/image_to_text/recall@10` is `whole_report/retrieval.en.image_to_text.recall_at_10`. Earlier versions
recorded it as `retrieval/en/image_to_text/recall_at_10`; `logged_value` finds both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

_HEADLINE, _WHOLE = "headline", "whole_report"


def metric_name(name: str) -> str:
    """A name with the characters that MLflow accepts: `recall@10` is `recall_at_10`."""
    return name.replace("@", "_at_")


def headline_name(metric: str) -> str:
    """The name of a headline metric of the report."""
    return f"{_HEADLINE}/{_flat(metric)}"


def whole_name(metric: str) -> str:
    """The name of any metric of the report."""
    return f"{_WHOLE}/{_flat(metric)}"


def named(metrics: Mapping[str, float], headline: Collection[str]) -> dict[str, float]:
    """Metrics of a report under their names in MLflow, those of `headline` first; NaN (not measured) is left out."""
    measured = {name: value for name, value in metrics.items() if value == value}
    first = {headline_name(name): measured[name] for name in headline if name in measured}
    return first | {whole_name(name): value for name, value in measured.items()}


def logged_value(logged: Mapping[str, float], metric: str) -> float | None:
    """A metric of the report in a run's metrics; None if the run does not have it."""
    return logged.get(whole_name(metric), logged.get(metric_name(metric)))


def _flat(metric: str) -> str:
    return metric_name(metric).replace("/", ".")
