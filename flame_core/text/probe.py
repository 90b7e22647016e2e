"""Checks that an LLM can be read as this engine does: packed texts give the same vectors as each text by itself.

It runs on two captions whenever an encoder is made, so an architecture with other attention is refused before anything
is stored.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from flame_core.errors import ComputationError
from flame_core.text.sentence import SENTENCE
from flame_core.text.sequence import FacetSequence

if TYPE_CHECKING:
    from flame_core.text.encoder import TextEncoder

PROBE_CAPTIONS = ("A red kite above the sea.", "Two dogs and a small boy play in the snow near an old wooden house.")


def probe_facets(encoder: TextEncoder) -> None:
    """Compare packed facets with separate passes on two captions.

    Raises:
        ComputationError: they differ, so this model cannot be read facet by facet; names its class.
    """
    kind = max(encoder.params.template, key=encoder.facets.facet_count)
    packed = [encoder.facets.encode(kind, caption) for caption in PROBE_CAPTIONS]
    head, own = encoder.share(packed)
    length = encoder.params.batch_tokens if encoder.backend == "flex" else 0  # the most common row length
    together = F.normalize(encoder.read_tokens(own, head, length), dim=-1).split(len(packed[0].readout))
    for i, sequence in enumerate(packed):
        alone = F.normalize(encoder.read_tokens(separate(sequence), length=length), dim=-1)
        _require_equal(
            encoder,
            together[i],
            alone,
            "facets packed into one pass differ from separate passes",
            "this architecture cannot be used as the frozen LLM",
        )


def probe_sentences(encoder: TextEncoder) -> None:
    """Compare sentences read in one row with each by itself; does nothing if params read no sentences.

    Raises:
        ComputationError: they differ; names the model's class.
    """
    how = encoder.sentence_pass
    if how is None:
        return
    sequences = [encoder.facets.encode(SENTENCE, caption) for caption in PROBE_CAPTIONS]
    head, own = encoder.share(sequences, how)
    length = encoder.params.batch_tokens if encoder.backend == "flex" else 0
    together = encoder.reduced(encoder.read_tokens(own, head, length, how), sequences)
    for i, sequence in enumerate(sequences):
        alone = encoder.reduced(encoder.read_tokens([sequence], length=length, how=how), [sequence])
        _require_equal(
            encoder,
            together[i],
            alone[0],
            "sentences packed into one row differ from separate ones",
            "text.sentence cannot be used with this architecture",
        )


def _require_equal(encoder: TextEncoder, together: Tensor, alone: Tensor, what: str, so: str) -> None:
    tolerance = 1e-4 if encoder.params.dtype == "float32" else 2e-2
    error = (together - alone).abs().max().item()
    if not error <= tolerance:
        name = type(encoder.facet_pass.model).__name__
        raise ComputationError(f"{name}: {what} by {error:.2g} (at most {tolerance:g}); {so}")


def separate(sequence: FacetSequence) -> list[FacetSequence]:
    """The K plain causal sequences, of prefix and one facet each, that a packed sequence combines."""
    prefix = sequence.segment.count(0)
    ends = [prefix, *(i + 1 for i in sequence.readout)]
    singles = []
    for start, end in pairwise(ends):
        keep = [*range(prefix), *range(start, end)]
        singles.append(
            FacetSequence(
                ids=[sequence.ids[i] for i in keep],
                segment=[0] * len(keep),
                position=list(range(len(keep))),
                readout=[len(keep) - 1],
            )
        )
    return singles
