"""A text as the LLM gets it: token ids, which tokens each may attend to, and where vectors are read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FacetSequence:
    """A caption with its facets as token ids. All lists except `readout` have one entry per token (length S).

    A caption that is read as a sentence is a prefix without facets.
    """

    ids: list[int]
    segment: list[int]  # 0 in the prefix, j in facet j
    position: list[int]  # restarts at the end of the prefix for every facet
    readout: list[int]  # index of the last token of each facet, length K; for a sentence, of its tokens that are read

    def __len__(self) -> int:
        return len(self.ids)
