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
        texts: their captions, at least one each, or why there is none.
        provenances: where the captions of each sample came from.
        ledger: a row per sample about how it was asked for; empty if nobody was asked.
        language: of the texts.
    """

    texts: list[list[str] | Failure]
    provenances: list[str]
    ledger: list[dict[str, Any]] = field(default_factory=list)
    language: str = "en"

    @classmethod
    def by(cls, captioner: Captioner, samples: Sequence[Sample]) -> Written:
        """What a captioner writes about samples, one caption each."""
        return cls(one_each(captioner.captions(samples)), [captioner.provenance] * len(samples))


def one_each(texts: Sequence[str | Failure]) -> list[list[str] | Failure]:
    """Captions of samples that have one each."""
    return [[text] if isinstance(text, str) else text for text in texts]
