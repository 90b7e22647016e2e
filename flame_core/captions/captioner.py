"""The protocol of all captioners."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from PIL import Image

from flame_core.data.shards import Sample

Kind = Literal["short", "long"]
KINDS: tuple[Kind, ...] = ("short", "long")


@dataclass(frozen=True)
class Failure:
    """Why a sample got no caption."""

    reason: str


def undecodable(jpeg: bytes) -> Failure | None:
    """Why a picture cannot be decoded; None if it can."""
    try:
        with Image.open(io.BytesIO(jpeg)) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged pictures
        return Failure(f"the picture cannot be decoded ({type(error).__name__})")
    return None


class Captioner(Protocol):
    """Writes one caption per sample."""

    provenance: str  # recorded in the captions file

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text, or the reason why there is none, per sample of a shard, in order."""
        ...


@dataclass(frozen=True)
class Written:
    """What a captioner wrote about the samples of a shard, in order.

    Attributes:
        texts: a caption each, or why there is none.
        provenances: where each text came from.
        ledger: a row per sample about how it was asked for; empty if nobody was asked.
        language: of the texts.
    """

    texts: list[str | Failure]
    provenances: list[str]
    ledger: list[dict[str, Any]] = field(default_factory=list)
    language: str = "en"

    @classmethod
    def by(cls, captioner: Captioner, samples: Sequence[Sample], language: str = "en") -> Written:
        """What a captioner writes about samples."""
        return cls(captioner.captions(samples), [captioner.provenance] * len(samples), language=language)
