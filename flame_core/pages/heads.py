"""The page of `flame tune`: the linear probe of every model over the noise that it was trained with, and all heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flame_core.gates import Check
from flame_core.pages.charts import Bar, bar_chart, standalone
from flame_core.pages.render import render

_TERMS, TEST = ("mse", "cov", "svd"), "test"  # as in `tuning`, which nothing here may import


def heads_page(record: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """The page as HTML; `record` is the content of `heads.json`."""
    models: Mapping[str, Any] = record["models"]
    return render(
        "heads.html.j2",
        within=record["within"],
        beyond=record["beyond"],
        test=TEST,
        probes=[(name, model) for name, model in _by_noise(models) if "lp" in model["presets"]],
        noisy=any(model["noise"] for model in models.values()),
        tuned=[(name, model) for name, model in models.items() if len(model["presets"]) > 1],
        terms=_TERMS,
        failed=[check for check in checks if not check.passed],
        charts={title: bar_chart(bars, title, labels=170) for title, bars in _charts(record).items()},
    )


def heads_chart(record: Mapping[str, Any]) -> bytes:
    """The first chart of the page as a file."""
    title, bars = next(iter(_charts(record).items()))
    return standalone(bar_chart(bars, title, labels=170))


def _by_noise(models: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Models in the order of their noise; those without recipe last."""
    return sorted(models.items(), key=lambda each: (each[1]["noise"] is None, each[1]["noise"] or 0.0))


def _charts(record: Mapping[str, Any]) -> dict[str, list[Bar]]:
    """{title: bars} of the accuracies within the domain, and in every other domain."""
    charts = {"Accuracy within the domain": _bars(record, TEST, record["within"]["largest_class"])}
    return charts | {f"Accuracy beyond it: {name}": _bars(record, name, None) for name in record["beyond"]}


def _bars(record: Mapping[str, Any], part: str, chance: float | None) -> list[Bar]:
    bars = []
    for name, model in _by_noise(record["models"]):
        for preset, found in model["presets"].items():
            accuracy = found["accuracy"][part]
            bars.append(
                Bar(
                    f"{name}, {preset}",
                    accuracy["mean"],
                    accuracy["low"],
                    accuracy["high"],
                    chance,
                    main=len(model["presets"]) > 1 and preset == model["best"],
                )
            )
    return bars
