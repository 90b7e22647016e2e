"""The page of `flame concepts`: counts by rank, the rarest and the most frequent concepts, pairs that do not fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame_core.concepts.concept_out import Frequencies
from flame_core.pages.log_charts import log_line_chart
from flame_core.pages.render import render

_SHOWN = 40  # concepts of either end


@dataclass(frozen=True)
class Row:
    """A concept on the page; counts in pictures are None if no tagger can tell."""

    name: str
    text: int
    image: int | None
    both: int | None
    unknown: str


def concept_page(found: Frequencies, thresholds: np.ndarray | None) -> str:
    """The page as HTML; `thresholds` [C] if pictures were tagged."""
    order = found.rarest()
    zero = int((found.text == 0).sum())
    tail = order[zero:][:_SHOWN]
    return render(
        "concepts.html.j2",
        samples=found.counts.misalignment.samples,
        concepts=len(order),
        zero=zero,
        median=float(np.median(found.text)),
        mode=found.mode,
        chart=rank_chart(found),
        never=[found.concepts.names[number] for number in order[:zero][: 10 * _SHOWN]],
        unknown=sum(bool(each) for each in found.unknown),
        rarest=[_row(found, number) for number in tail],
        most=[_row(found, number) for number in order[::-1][:_SHOWN] if found.text[number]],
        misalignment=None if thresholds is None else found.counts.misalignment,
        told=int((found.counts.image >= 0).sum()),
    )


def rank_chart(found: Frequencies) -> str:
    """Counts in captions (and pictures) by rank, both on logarithmic axes."""
    curves = {"captions": _sorted(found.text)}
    if (found.counts.image > 0).any():
        curves["pictures"] = _sorted(found.counts.image)
    return log_line_chart(curves, "Samples per concept, by rank", "rank of the concept", "samples")


def _sorted(counts: np.ndarray) -> np.ndarray:
    return np.sort(counts[counts > 0])[::-1]


def _row(found: Frequencies, number: int) -> Row:
    image, both = int(found.counts.image[number]), int(found.counts.both[number])
    told = image >= 0
    return Row(
        found.concepts.names[number],
        int(found.text[number]),
        image if told else None,
        both if told else None,
        ", ".join(found.unknown[number]),
    )
