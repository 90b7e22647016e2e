"""What differs between the params and metrics of two runs: `flame diff`.

Two measured on the same held-out pictures have an interval for the difference of each headline metric, from the paired
results on each picture, as in `flame compare`. Other metrics have a difference only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flame_core.errors import InputError
from flame_core.measuring.results import Results
from flame_core.pages.compare import compare
from flame_core.tracking.recorded_run import RecordedModel

NONE = "(none)"
_BOUNDS = ("/low", "/high")
_CONFIDENCE = "0.95"  # where a run's params do not say


@dataclass(frozen=True)
class Difference:
    """Rows of text: (param, first, second), and (metric, first, second, difference, interval), only where they differ.

    `others` counts the metrics that differ and are not among the headline metrics, which were left out; `alone` names
    the recipes that only one side has.
    """

    params: list[tuple[str, str, str]] = field(default_factory=list)
    metrics: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    others: int = 0
    notes: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)


def difference(
    first: Mapping[str, RecordedModel], second: Mapping[str, RecordedModel], everything: bool = False
) -> Difference:
    """What differs between two sets of models, paired by recipe; two single models are paired whatever their recipes.

    Only the headline metrics, unless `everything`.

    Raises:
        InputError: they have no recipe in common.
    """
    found = Difference()
    if len(first) == len(second) == 1:
        pairs = {"": (next(iter(first.values())), next(iter(second.values())))}
    else:
        pairs = {recipe: (first[recipe], second[recipe]) for recipe in first if recipe in second}
        if not pairs:
            raise InputError(f"no recipe in common: {', '.join(first)} and {', '.join(second)}")
        if 1 not in (len(first), len(second)):  # a single model is compared with its recipe's of the other side
            found.alone.extend(sorted(first.keys() ^ second.keys()))
    for recipe, (one, other) in pairs.items():
        for name, old, new in differing_params(one.params, other.params):
            row = (
                name.replace("train.", f"train.{recipe}.", 1) if recipe and name.startswith("train.") else name,
                old,
                new,
            )
            if row not in found.params:
                found.params.append(row)
        if one.results is None or other.results is None:
            found.notes.append(f"{recipe or 'the model'}: not measured in both, so no metric is compared")
            continue
        confidence = float(one.params.get("evaluate.confidence", _CONFIDENCE))
        rows = differing_metrics(one.results, other.results, confidence)
        shown = rows if everything else [row for row in rows if row[0] in one.results.headline]
        found.metrics.extend((f"{recipe}: {row[0]}" if recipe else row[0], *row[1:]) for row in shown)
        found = replace(found, others=found.others + len(rows) - len(shown))
        if (one.results.split, one.results.headline) != (other.results.split, other.results.headline):
            found.notes.append(
                f"{recipe or 'the model'}: measured on other pictures or languages, so differences have no interval"
            )
    return found


def differing_params(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(param, first, second) where values differ, of the sections that both have."""
    common = {name.partition(".")[0] for name in first} & {name.partition(".")[0] for name in second}
    names = [name for name in {**first, **second} if name.partition(".")[0] in common]
    return [
        (name, first.get(name, NONE), second.get(name, NONE))
        for name in names
        if first.get(name, NONE) != second.get(name, NONE)
    ]


def differing_metrics(first: Results, second: Results, confidence: float) -> list[tuple[str, str, str, str, str]]:
    """(metric, first, second, difference, its interval or nothing), the headline metrics first."""
    intervals: dict[str, str] = {}
    if (first.split, first.headline) == (second.split, second.headline):
        compared = compare([replace(first, recipe="first"), replace(second, recipe="second")], confidence)
        for metric, row in compared["recipes"]["second"].items():
            intervals[metric] = f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
    names = dict.fromkeys([*first.headline, *first.metrics, *second.metrics])
    rows = []
    for name in names:
        old, new = first.metrics.get(name), second.metrics.get(name)
        if name.endswith(_BOUNDS) or old == new or (old != old and new != new):
            continue
        change = "" if old is None or new is None else f"{round(new - old, 4) + 0.0:+.4f}"
        rows.append((name, _value(old), _value(new), change, intervals.get(name, "")))
    return rows


def _value(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"
