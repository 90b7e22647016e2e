"""The beginning of every text of a kind (`<s> Image description : "`), computed once instead of once per text.

Attention in it is causal, so keys and values of these first tokens are the same whatever follows. They are recorded in
one pass over the head only, and the passes over the rest of the texts attend to them. On short captions that saves a
tenth of the tokens. Used on a CPU; rows for FlexAttention on a GPU keep their heads, which are 2 % of the tokens of a
large model's long captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from flame_core.text.sequence import FacetSequence


@dataclass
class SharedHead:
    """Keys and values [1, G, H, E] of the first H tokens, by the attention module that computed them."""

    length: int
    of: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)


def split_head(sequences: Sequence[FacetSequence]) -> tuple[FacetSequence, list[FacetSequence]]:
    """The prefix tokens that all sequences begin with, up to the first one that is read, and the rest of each sequence.

    The head of a single sequence is empty: nothing would be shared.
    """
    first, *others = sequences
    length = min(first.segment.count(0), *first.readout) if others else 0
    for each in others:
        length = min(length, each.segment.count(0), *each.readout)
        while each.ids[:length] != first.ids[:length]:
            length -= 1
    head = FacetSequence(first.ids[:length], [0] * length, list(range(length)), [])
    return head, [_behind(each, length) for each in sequences]


def _behind(sequence: FacetSequence, start: int) -> FacetSequence:
    return FacetSequence(
        ids=sequence.ids[start:],
        segment=sequence.segment[start:],
        position=sequence.position[start:],
        readout=[i - start for i in sequence.readout],
    )
