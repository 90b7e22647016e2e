"""What `flame concepts` costs, from sizes and the rate that `benchmarks/concept_counts.py` measured."""

from __future__ import annotations

from flame_core.hours import hours_text
from flame_core.params import ConceptParams

CAPTIONS_PER_SECOND = 40_000.0  # of one core, against 4,000 concepts
REFERENCE_PER_SECOND = 17.0  # captions of the paper's code on 48 cores: 54 hours for CC3M, 7,200 for LAION-400M
_STORED = 12.0  # bytes per caption in the out and the work cache, of words and hits


def concept_section(params: ConceptParams, samples: int) -> dict[str, dict[str, str]]:
    """A title, and the cost of counting `samples` with one caption per kind, as text."""
    captions = samples * len(params.kinds)
    hours = captions / CAPTIONS_PER_SECOND / 3600
    values = {
        "core hours": hours_text(hours),
        "the paper's code": f"{captions / REFERENCE_PER_SECOND / 3600:,.0f} hours on 48 cores",
        "hits and words": f"{_STORED * captions / 1e9:,.3g} GB",
    }
    if params.images is not None and params.images.tagger.kind != "table":
        values["pictures seen by the tagger"] = f"{samples:,}, once"
    return {f"concepts: {captions:,} captions": values}
