"""Which samples of a shard mention a concept in a caption.

1. `words_of_shard`: for each lemma of the concepts, the captions that hold it.
2. `known_words`: which lemmas occur in any caption of any shard.
3. `hits_of_shard`: for each concept the samples with a hit, in two modes. `bag`: one caption holds all its lemmas.
   `phrase`: one caption holds them one after another.

A lemma that no caption of the whole data set holds is unknown. `drop` leaves it out of the concept, as the paper does;
a concept without any known lemma has no hit. With `zero`, a concept with an unknown lemma has no hit. Because this is
decided over all shards, the hits of a sample depend neither on its shard nor on the other samples in it.

Captions are read a second time only for concepts of several words, and of these only the captions with all the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from pyroaring import BitMap

from flame_core.captions.table import ShardCaptions
from flame_core.concepts.bitmaps import bitmap_of, rows_of
from flame_core.concepts.concept_list import ConceptList
from flame_core.concepts.lemmas import BREAK, Numbering

Unknown = Literal["drop", "zero"]
_BLOCK = 20_000  # captions that are made numbers of at once


def words_of_shard(texts: Sequence[str], numbering: Numbering) -> list[BitMap]:
    """For each lemma of the vocabulary, the numbers of the captions that hold it."""
    found: list[list[np.ndarray]] = [[] for _ in numbering.vocabulary]
    for start in range(0, len(texts), _BLOCK):
        numbers = numbering.of(texts[start : start + _BLOCK])
        captions = start + np.cumsum(numbers == BREAK)
        known = numbers >= 0
        if not known.any():
            continue
        pairs = _distinct(np.sort((numbers[known].astype(np.int64) << 32) | captions[known]))
        lemmas, own = pairs >> 32, (pairs & 0xFFFFFFFF).astype(np.uint32)
        edges = [0, *(np.flatnonzero(np.diff(lemmas)) + 1).tolist(), len(pairs)]
        for begin, end in pairwise(edges):
            found[int(lemmas[begin])].append(own[begin:end])
    return [bitmap_of(np.concatenate(parts)) if parts else BitMap() for parts in found]


def known_words(words: Iterable[Sequence[BitMap]], count: int) -> np.ndarray:
    """Whether each of `count` lemmas occurs in any shard, from the words of all shards."""
    known = np.zeros(count, bool)
    for shard in words:
        known |= np.fromiter((bool(captions) for captions in shard), bool, count)
    return known


@dataclass(frozen=True)
class Patterns:
    """The lemmas of each concept as numbers, without what is left out; an empty one has no hit.

    Attributes:
        lemmas: per concept.
        unknown: per concept, its unknown lemmas.
    """

    lemmas: list[tuple[int, ...]]
    unknown: list[list[str]]


def patterns_of(concepts: ConceptList, known: Mapping[str, bool], unknown: Unknown) -> Patterns:
    """What is looked for, after the policy for unknown words."""
    numbers = {lemma: number for number, lemma in enumerate(concepts.vocabulary)}
    lost = [[lemma for lemma in concept.lemmas if not known[lemma]] for concept in concepts]
    return Patterns(
        [
            () if own and unknown == "zero" else tuple(numbers[each] for each in concept.lemmas if known[each])
            for concept, own in zip(concepts, lost, strict=True)
        ],
        lost,
    )


@dataclass(frozen=True)
class TextHits:
    """Per concept, the rows of the samples with a hit, by mode."""

    bag: list[BitMap]
    phrase: list[BitMap]


def hits_of_shard(
    captions: ShardCaptions, words: Sequence[BitMap], patterns: Sequence[tuple[int, ...]], numbering: Numbering
) -> TextHits:
    """The hits of a shard's captions, from its words."""
    bags = [_all_of(words, pattern) for pattern in patterns]
    several = [number for number, pattern in enumerate(patterns) if len(pattern) > 1 and bags[number]]
    phrases = list(bags)
    if several:
        chosen = rows_of(BitMap.union(*(bags[number] for number in several)))
        found = _phrases(captions.texts, chosen, [patterns[number] for number in several], numbering)
        for number, own in zip(several, found, strict=True):
            phrases[number] = own
    if np.array_equal(captions.rows, np.arange(len(captions))):  # one caption per sample
        return TextHits(bags, phrases)
    return TextHits([_samples(captions, each) for each in bags], [_samples(captions, each) for each in phrases])


def _all_of(words: Sequence[BitMap], pattern: tuple[int, ...]) -> BitMap:
    lemmas = sorted(set(pattern), key=lambda number: len(words[number]))
    if not lemmas or not words[lemmas[0]]:
        return BitMap()
    return BitMap.intersection(*(words[number] for number in lemmas))


def _phrases(
    texts: Sequence[str], captions: np.ndarray, patterns: Sequence[tuple[int, ...]], numbering: Numbering
) -> Iterator[BitMap]:
    """Per pattern, those of the given captions that hold its lemmas one after another."""
    numbers = numbering.of([texts[int(caption)] for caption in captions])
    owner = np.concatenate([np.zeros(1, np.int64), np.cumsum(numbers == BREAK)])
    padded = np.concatenate([numbers, np.full(max(map(len, patterns), default=0), BREAK, np.int32)])
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(len(numbering.vocabulary) + 1, dtype=np.int32)).tolist()
    for pattern in patterns:
        anchor = min(range(len(pattern)), key=lambda place: edges[pattern[place] + 1] - edges[pattern[place]])
        starts = order[edges[pattern[anchor]] : edges[pattern[anchor] + 1]] - anchor
        starts = starts[starts >= 0]
        for place, lemma in enumerate(pattern):
            if place != anchor:
                starts = starts[padded[starts + place] == lemma]
        yield bitmap_of(captions[_distinct(owner[starts])])


def _distinct(ascending: np.ndarray) -> np.ndarray:
    """The different values of an ascending array."""
    return ascending[np.diff(ascending, prepend=-1) != 0]


def _samples(captions: ShardCaptions, found: BitMap) -> BitMap:
    """The rows of the samples of some captions."""
    return bitmap_of(_distinct(captions.rows[rows_of(found)].astype(np.int64))) if found else found
