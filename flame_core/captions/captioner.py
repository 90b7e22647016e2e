"""The protocol of all captioners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from flame_core.data.shards import Sample

Kind = Literal["short", "long"]
KINDS: tuple[Kind, ...] = ("short", "long")


@dataclass(frozen=True)
class Failure:
    """Why a sample got no caption."""

    reason: str


class Captioner(Protocol):
    """Writes one caption per sample."""

    provenance: str  # recorded in the captions file

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text, or the reason why there is none, per sample of a shard, in order."""
        ...
