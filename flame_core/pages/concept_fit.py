"""The page of `flame concept-fit`: accuracy over frequency, with the long tail named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.concepts.concept_out import Frequencies
from flame_core.concepts.frequency_fit import Fit, Points
from flame_core.pages.log_charts import Point, scatter_chart
from flame_core.pages.render import render
from flame_core.params import ConceptFitParams

_NAMED = 8  # concepts of the tail whose names are in the chart
_LISTED = 40  # in the table
_HELD = {"text": "captions", "image": "pictures", "both": "captions and pictures"}


@dataclass(frozen=True)
class Fitted:
    """The points of a recipe in a group of test sets, and their fit."""

    recipe: str
    group: str
    points: Points
    fit: Fit


@dataclass(frozen=True)
class Decade:
    """Concepts of a range of frequencies, and their mean score."""

    title: str
    concepts: int
    score: float


@dataclass(frozen=True)
class Shown:
    """A fit on the page, with mean scores by decade and the rarest concepts."""

    fitted: Fitted
    chart: str
    decades: list[Decade]
    rarest: list[tuple[str, str, int, float, int]]


def fit_page(fitted: Sequence[Fitted], counted: Frequencies, chosen: ConceptFitParams) -> str:
    """The page as HTML."""
    return render(
        "concept_fit.html.j2",
        shown=[
            Shown(each, fit_chart(each, chosen), decades(each.points), _rarest(each.points))
            for each in sorted(fitted, key=lambda each: each.fit.zero - each.fit.points)  # most points first
        ],
        least=chosen.min_points,
        concepts=len(counted.concepts),
        samples=counted.counts.misalignment.samples,
        side=_HELD[chosen.frequency],
        confidence=chosen.confidence,
        never=int((counted.by(chosen.frequency) == 0).sum()),
    )


def fit_chart(fitted: Fitted, chosen: ConceptFitParams) -> str:
    """Score over frequency, the fitted line, and the names of the rarest concepts."""
    points = fitted.points
    named = set(_tail(points)[:_NAMED].tolist())
    dots = [
        Point(
            int(points.frequency[number]),
            float(points.score[number]),
            f"{points.concept[number]} ({points.test_set[number]}): {points.score[number]:.1f} % of "
            f"{points.weight[number]}, {points.frequency[number]:,} samples",
            points.concept[number] if number in named else "",
            number in named,
        )
        for number in range(len(points))
    ]
    title = f"{fitted.recipe}: score of a concept over its frequency in {_HELD[chosen.frequency]}"
    return scatter_chart(dots, _line(fitted), title, f"training samples with the concept in {_HELD[chosen.frequency]}")


def decades(points: Points) -> list[Decade]:
    """Mean scores of frequency 0, and from 1, 10, 100, ... to below ten times that."""
    place = np.where(points.frequency > 0, np.floor(np.log10(np.maximum(points.frequency, 1)) + 1e-9) + 1, 0)
    found = []
    for number in range(int(place.max(initial=0)) + 1):
        own = points.score[place == number]
        if len(own):
            title = "0" if number == 0 else f"{10 ** (number - 1):,} to {10**number - 1:,}"
            found.append(Decade(title, len(own), float(own.mean())))
    return found


def _line(fitted: Fitted) -> tuple[float, float] | None:
    """(intercept, slope) of the fit within test sets, through the mean of all points of a frequency above 0."""
    slope, seen = fitted.fit.slope, fitted.points.frequency > 0
    if slope is None:
        return None
    x, y = np.log10(fitted.points.frequency[seen]), fitted.points.score[seen]
    intercept = float(y.mean() - slope * x.mean())
    return (intercept, slope) if math.isfinite(intercept) else None


def _tail(points: Points) -> np.ndarray:
    """Numbers of the points, each concept once, the rarest first; of equals the one with the most pictures."""
    order = np.lexsort((np.arange(len(points)), -points.weight, points.frequency))
    _, first = np.unique(np.array(points.concept, dtype=object)[order].astype(str), return_index=True)
    return order[np.sort(first)]


def _rarest(points: Points) -> list[tuple[str, str, int, float, int]]:
    return [
        (
            points.concept[number],
            points.test_set[number],
            int(points.frequency[number]),
            float(points.score[number]),
            int(points.weight[number]),
        )
        for number in _tail(points)[:_LISTED].tolist()
    ]
