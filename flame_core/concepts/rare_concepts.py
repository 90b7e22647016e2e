"""The rarest concepts of a training split, as a list to gather test pictures for (Let It Wag!, arXiv 2404.04125).

The paper takes the rarest concepts of LAION-400M that occur at all; its final list was curated by hand.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flame_core.concepts.concept_out import Frequencies
from flame_core.errors import InputError

Side = Literal["text", "image", "both"]


@dataclass(frozen=True)
class RareConcept:
    """A concept with its counts; -1 where no tagger can tell."""

    name: str
    text: int
    image: int
    both: int


def rarest(found: Frequencies, side: Side, top: int, zero: bool) -> list[RareConcept]:
    """The `top` rarest concepts by the count of a side, the rarest first; of equals in the order of their names.

    Args:
        found: the counts.
        side: which count.
        top: at most so many.
        zero: whether concepts with a count of 0 are in the list.

    Raises:
        InputError: nothing is counted on that side.
    """
    counts = found.by(side)
    if not (counts >= 0).any():
        raise InputError(f"concepts are not counted in pictures, so there is no count {side!r}: write concepts.images")
    order = np.argsort(counts, kind="stable")
    chosen = [number for number in order.tolist() if counts[number] > 0 or (zero and counts[number] == 0)][:top]
    return [
        RareConcept(
            found.concepts.names[number],
            int(found.text[number]),
            int(found.counts.image[number]),
            int(found.counts.both[number]),
        )
        for number in chosen
    ]


def to_csv(concepts: list[RareConcept]) -> str:
    """A table with a header; counts that nobody can tell are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["concept", "text", "image", "both"])
    for each in concepts:
        counts = ("" if count < 0 else str(count) for count in (each.text, each.image, each.both))
        writer.writerow([each.name, *counts])
    return buffer.getvalue()
