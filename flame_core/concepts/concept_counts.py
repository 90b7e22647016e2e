"""Counts of concepts from the hits of shards, and pairs whose caption and picture have no concept in common.

Counts of shards are added; whatever the shards, the sums are the same. All are exact.

Misalignment, of the pairs of a data set, by two definitions (arXiv 2404.04125):
- `published`, by the paper's code: the caption has a concept and the picture has one, and none is in both;
- `algorithm`, by the paper's Algorithm 1: none is in both, even if one side has no concept at all.
Only concepts that the tagger can tell are considered, on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pyroaring import BitMap


@dataclass(frozen=True)
class ShardHits:
    """The rows of a shard's samples with a hit, per concept.

    Attributes:
        rows: samples of the shard.
        bag, phrase: hits in captions, by mode.
        image: hits in pictures; None without a tagger.
    """

    rows: int
    bag: Sequence[BitMap]
    phrase: Sequence[BitMap]
    image: Sequence[BitMap] | None = None


@dataclass(frozen=True)
class Misalignment:
    """Numbers of samples; `tagged_*` have at least one concept on that side."""

    samples: int = 0
    tagged_text: int = 0
    tagged_image: int = 0
    published: int = 0
    algorithm: int = 0

    def __add__(self, other: Misalignment) -> Misalignment:
        return Misalignment(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def rates(self) -> dict[str, float]:
        """Shares: of all samples, and of the larger number of tagged ones."""
        tagged = max(self.tagged_text, self.tagged_image)
        return {
            "published": self.published / self.samples if self.samples else 0.0,
            "published_of_tagged": self.published / tagged if tagged else 0.0,
            "algorithm": self.algorithm / self.samples if self.samples else 0.0,
        }


@dataclass(frozen=True)
class Counts:
    """Samples per concept [C] that have it, int64.

    Attributes:
        bag, phrase: in a caption.
        image: in the picture; -1 for concepts that the tagger cannot tell.
        both: in a caption (by the chosen mode) and in the picture; -1 as well.
        misalignment: of the samples.
    """

    bag: np.ndarray
    phrase: np.ndarray
    image: np.ndarray
    both: np.ndarray
    misalignment: Misalignment

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.bag + other.bag,
            self.phrase + other.phrase,
            np.where(self.image < 0, -1, self.image + other.image),
            np.where(self.both < 0, -1, self.both + other.both),
            self.misalignment + other.misalignment,
        )

    def text(self, mode: str) -> np.ndarray:
        """[C] of a mode."""
        return self.bag if mode == "bag" else self.phrase

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        arrays = {name: getattr(self, name).tolist() for name in ("bag", "phrase", "image", "both")}
        return {**arrays, "misalignment": asdict(self.misalignment)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Counts:
        """What `to_json` returned."""
        arrays = {name: np.array(content[name], np.int64) for name in ("bag", "phrase", "image", "both")}
        return cls(**arrays, misalignment=Misalignment(**content["misalignment"]))


def count_shard(hits: ShardHits, mode: str, covered: np.ndarray) -> Counts:
    """The counts of one shard; `covered` [C] says which concepts the tagger can tell."""
    text = hits.bag if mode == "bag" else hits.phrase
    absent = np.full(len(text), -1, np.int64)
    bag, phrase = _sizes(hits.bag), _sizes(hits.phrase)
    if hits.image is None:
        return Counts(bag, phrase, absent, absent, Misalignment(samples=hits.rows))
    both = [own & seen for own, seen in zip(text, hits.image, strict=True)]
    told = np.flatnonzero(covered).tolist()
    in_text, in_image, in_both = (_union(sets, told) for sets in (text, hits.image, both))
    found = Misalignment(
        samples=hits.rows,
        tagged_text=len(in_text),
        tagged_image=len(in_image),
        published=len((in_text & in_image) - in_both),
        algorithm=hits.rows - len(in_both),
    )
    return Counts(
        bag,
        phrase,
        np.where(covered, _sizes(hits.image), -1),
        np.where(covered, _sizes(both), -1),
        found,
    )


def _sizes(sets: Sequence[BitMap]) -> np.ndarray:
    return np.fromiter(map(len, sets), np.int64, len(sets))


def _union(sets: Sequence[BitMap], chosen: Sequence[int]) -> BitMap:
    return BitMap.union(*(sets[number] for number in chosen)) if chosen else BitMap()
