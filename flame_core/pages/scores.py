"""The page of `flame scores`: how each score is spread, the pictures at its ends, and what selections keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.inline_pictures import thumbnail
from flame_core.pages.charts import Bar, bar_chart
from flame_core.pages.render import render

_BINS, _PICTURES = 12, 12  # pictures at either end


@dataclass(frozen=True)
class Kept:
    """A selection in the table: its rules in words, and how many samples it keeps."""

    name: str
    rules: str
    samples: int
    share: float


@dataclass(frozen=True)
class Spread:
    """A scorer on the page: quantiles, a histogram, and pictures (data URI, caption, score) at both ends."""

    name: str
    kind: str
    mean: float
    quantiles: dict[str, float]
    chart: str
    lowest: list[tuple[str, str, float]]
    highest: list[tuple[str, str, float]]


def scores_page(
    scores: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    selections: Sequence[Kept],
    jpeg: Callable[[int], bytes],
    captions: Callable[[Sequence[int]], Mapping[int, str]],
) -> str:
    """The page as HTML.

    Args:
        scores: of all samples, [N] by scorer.
        kinds: of scorer by name.
        selections: that were made.
        jpeg: returns the picture of a sample.
        captions: returns captions of samples.
    """
    ends = {name: extremes(own, _PICTURES) for name, own in scores.items()}
    texts = captions(sorted({sample for low, high in ends.values() for sample in (*low, *high)}))

    def shown(name: str, samples: Sequence[int]) -> list[tuple[str, str, float]]:
        return [(thumbnail(jpeg(each)), texts.get(each, ""), float(scores[name][each])) for each in samples]

    found = [
        Spread(name, kinds[name], float(own.mean(dtype=np.float64)), quantiles(own), histogram(name, own),
               shown(name, ends[name][0]), shown(name, ends[name][1]))
        for name, own in scores.items()
    ]  # fmt: skip
    samples = len(next(iter(scores.values())))
    return render("scores.html.j2", samples=samples, scorers=found, selections=selections)


def quantiles(scores: np.ndarray) -> dict[str, float]:
    """Scores below which so many percent of the samples lie."""
    shares = (1, 10, 30, 50, 70, 90, 99)
    return {f"{share} %": float(value) for share, value in zip(shares, np.percentile(scores, shares), strict=True)}


def histogram(name: str, scores: np.ndarray) -> str:
    """Shares of the samples in ranges of equal width, as a chart."""
    counts, edges = np.histogram(scores.astype(np.float64), bins=_BINS)
    bars = [
        Bar(f"{low:.3g} to {high:.3g}", share, share, share)
        for low, high, share in zip(edges[:-1], edges[1:], counts / len(scores), strict=True)
    ]
    return bar_chart(bars, f"Samples by {name}", labels=152)


def extremes(scores: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """The samples with the lowest scores, the lowest first, and those with the highest, the highest first."""
    order = np.argsort(scores, kind="stable")
    return order[:count].tolist(), order[::-1][:count].tolist()
