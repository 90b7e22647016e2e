"""What `flame concepts` costs, from sizes and the rate that `benchmarks/concept_counts.py` measured."""

from __future__ import annotations

from flame_core.params import ConceptParams
from flame_core.quantities import duration, size_text

CAPTIONS_PER_SECOND = 40_000.0  # of one core, against 4,000 concepts
REFERENCE_PER_SECOND = 17.0  # captions of the paper's code on 48 cores: 54 hours for CC3M, 7,200 for LAION-400M
_STORED = 12.0  # bytes per caption in the out and the work cache, of words and hits


def concept_section(params: ConceptParams, samples: int) -> dict[str, dict[str, str]]:
    """A title, and the cost of counting `samples` with one caption per kind, as text."""
    captions = samples * len(params.kinds)
    values = {
        "time of one core": duration(captions / CAPTIONS_PER_SECOND),
        "the paper's code": f"{duration(captions / REFERENCE_PER_SECOND)} on 48 cores",
        "hits and words": size_text(_STORED * captions),
    }
    if params.images is not None and params.images.tagger.kind != "table":
        values["pictures seen by the tagger"] = f"{samples:,}, once"
    return {f"concepts: {captions:,} captions": values}
