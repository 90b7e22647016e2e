"""What `flame concepts` costs, counted from sizes and the rates that `benchmarks/concept_counts.py` measured."""

from __future__ import annotations

from dataclasses import dataclass

from flame_core.params import ConceptParams

CAPTIONS_PER_SECOND = 25_000.0  # of one core, against 4,000 concepts
_HITS = 2.0  # concepts per caption, of which each takes two bytes in a bitmap
_REFERENCE_HOURS = 7_200 * 48 / 414_080_000  # core hours per caption that the paper reports for LAION-400M


@dataclass(frozen=True)
class ConceptCost:
    """The cost of counting.

    Attributes:
        core_hours: of reading captions; shards are divided among processes.
        reference_core_hours: what the paper's code would take at the rate that it reports.
        stored_bytes: hits of captions, in the out and the work cache together.
        picture_passes: pictures that a tagger sees once.
    """

    core_hours: float
    reference_core_hours: float
    stored_bytes: float
    picture_passes: int


def concept_cost(params: ConceptParams, samples: int) -> ConceptCost:
    """The cost of counting in `samples` with one caption per kind."""
    captions = samples * len(params.kinds)
    from_pictures = params.images is not None and params.images.tagger.kind != "table"
    return ConceptCost(
        captions / CAPTIONS_PER_SECOND / 3600,
        captions * _REFERENCE_HOURS,
        3 * 2 * _HITS * captions,
        samples if from_pictures else 0,
    )
