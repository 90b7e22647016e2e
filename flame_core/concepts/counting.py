"""The steps of counting concepts as units of a work cache, a shard each: a killed one continues where it was.

1. `nouns`: how often lemmas end noun phrases, if nouns are concepts;
2. `words`: for each lemma of the concepts, the captions that hold it;
3. `hits`: for each concept, the samples whose captions mention it (`text_hits.py`);
4. `tags`: scores of the concepts in the pictures, if there is a tagger;
5. `joined`: both as hits of one file, and their counts.

One more shard costs these units of that shard only, unless a word occurs in it that was unknown before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flame_core.captions.table import ShardCaptions, captions_file, read_shard_captions
from flame_core.concepts.bitmaps import read_bitmaps, write_bitmaps
from flame_core.concepts.concept_counts import Counts, ShardHits, count_shard
from flame_core.concepts.concept_list import ConceptList
from flame_core.concepts.lemmas import Numbering, identity_hash
from flame_core.concepts.nouns import chosen_nouns, count_nouns
from flame_core.concepts.tags import TAGS, Tagger, as_stored, image_hits, write_tags
from flame_core.concepts.text_hits import (
    Patterns,
    Unknown,
    hits_of_shard,
    known_words,
    patterns_of,
    words_of_shard,
)
from flame_core.data.shards import Index, IndexRow
from flame_core.digest import value_digest, write_json
from flame_core.params.concepts import MatchMode, NounParams
from flame_core.processes.engines import map_units
from flame_core.reporting import progress
from flame_core.work import Unit, UnitRecord, WorkCache

STAGE = "concepts"
HITS, COUNTS = "hits.safetensors", "counts.json"  # of a joined unit
TEXT = "text.safetensors"  # of a unit of hits
_NOUNS, _WORDS = "nouns.json", "words.safetensors"
_PICTURES = 256  # that a tagger gets at once


@dataclass(frozen=True)
class Captions:
    """Which captions are counted, and where they are.

    Attributes:
        folder: of the captions of the training split.
        sha256: digests of its files by shard.
        kinds, language: of the captions that are counted.
    """

    folder: Path
    sha256: Mapping[str, str]
    kinds: tuple[str, ...]
    language: str

    def identity(self, shard: str) -> dict[str, Any]:
        """What the counted captions of a shard follow from."""
        return {"captions": self.sha256[shard], "kinds": list(self.kinds), "language": self.language}

    def read(self, shard: str) -> ShardCaptions:
        """The counted captions of a shard."""
        return read_shard_captions(captions_file(self.folder, shard), self.kinds, self.language)


@dataclass(frozen=True)
class _Task:
    """A unit that is made of a shard's captions, as a worker gets it."""

    step: Literal["nouns", "words", "hits"]
    shard: str
    captions: Captions
    work: Path
    inputs: Mapping[str, Any]
    vocabulary: tuple[str, ...] = ()
    patterns: tuple[tuple[int, ...], ...] = ()
    words: Path | None = None


def _compute(task: _Task) -> Unit:
    write = {"nouns": _write_nouns, "words": _write_words, "hits": _write_hits}[task.step]
    return WorkCache(task.work, STAGE).get(task.inputs, partial(write, task))


def _write_nouns(task: _Task, folder: Path) -> UnitRecord:
    captions = task.captions.read(task.shard)
    ends, held = count_nouns(captions.texts)
    write_json(folder / _NOUNS, {lemma: [count, held[lemma]] for lemma, count in sorted(ends.items())})
    return UnitRecord({"captions": len(captions)})


def _write_words(task: _Task, folder: Path) -> UnitRecord:
    captions = task.captions.read(task.shard)
    found = words_of_shard(captions.texts, _numbering(task.vocabulary, task.captions.language))
    write_bitmaps(folder / _WORDS, {"words": found})
    return UnitRecord({"captions": len(captions)})


def _write_hits(task: _Task, folder: Path) -> UnitRecord:
    assert task.words is not None
    captions, words = task.captions.read(task.shard), read_bitmaps(task.words)["words"]
    numbering = _numbering(task.vocabulary, task.captions.language)
    found = hits_of_shard(captions, words, task.patterns, numbering)
    write_bitmaps(folder / TEXT, {"bag": found.bag, "phrase": found.phrase})
    return UnitRecord({"captions": len(captions)})


@lru_cache(maxsize=1)
def _numbering(vocabulary: tuple[str, ...], language: str) -> Numbering:
    """One per process, whose words are lemmatised once."""
    return Numbering(vocabulary, language)


@dataclass(frozen=True)
class Counting:
    """A counting of concepts in the samples of an index.

    Attributes:
        captions: what is counted.
        pictures: {shard: digest of its tar}, whose JPEGs a tagger sees.
        index: all rows of the training split.
        work: the work cache's folder.
        workers: processes that read captions.
    """

    captions: Captions
    pictures: Mapping[str, str]
    index: Index
    work: Path
    workers: int

    @property
    def sizes(self) -> dict[str, int]:
        return dict(sorted(self.index.shard_sizes().items()))

    @property
    def _normaliser(self) -> str:
        return identity_hash(self.captions.language)

    def nouns(self, params: NounParams) -> list[str]:
        """The nouns of all captions."""
        ends: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for unit in self._over_shards("nouns", "find nouns", lambda shard: {}).values():
            for lemma, (count, own) in json.loads(unit.file(_NOUNS).read_text("utf-8")).items():
                ends[lemma] += count
                held[lemma] += own
        return chosen_nouns(ends, held, params.min_captions, params.most)

    def text(self, concepts: ConceptList, unknown: Unknown) -> tuple[dict[str, Unit], Patterns]:
        """Hits in captions by shard, and what was looked for."""
        vocabulary = tuple(concepts.vocabulary)
        of_words = value_digest(list(vocabulary))
        words = self._over_shards("words", "find words", lambda shard: {"vocabulary": of_words}, vocabulary=vocabulary)
        found = known_words((read_bitmaps(unit.file(_WORDS))["words"] for unit in words.values()), len(vocabulary))
        known = dict(zip(vocabulary, found.tolist(), strict=True))
        patterns = patterns_of(concepts, known, unknown)
        of_patterns = value_digest([list(pattern) for pattern in patterns.lemmas])
        units = self._over_shards(
            "hits",
            "find concepts",
            lambda shard: {"words": words[shard].sha256[_WORDS], "vocabulary": of_words, "patterns": of_patterns},
            lambda shard: {"words": words[shard].file(_WORDS)},
            vocabulary=vocabulary,
            patterns=tuple(patterns.lemmas),
        )
        return units, patterns

    def tags(self, concepts: ConceptList, tagger: Tagger, floor: float) -> dict[str, Unit]:
        """Scores of the pictures by shard."""
        cache, units = WorkCache(self.work, STAGE), {}
        inputs = {"step": "tags", "tagger": tagger.identity, "floor": floor, "concepts": concepts.digest()}
        with progress("tag pictures", len(self.index), "pictures") as bar:
            for shard, own in self.index.by_shard().items():
                rows = list(own)

                def blocks(rows: list[IndexRow] = rows) -> Iterator[np.ndarray]:
                    for start in range(0, len(rows), _PICTURES):
                        yield tagger.scores(rows[start : start + _PICTURES])

                def write(folder: Path, blocks: Callable[[], Iterator[np.ndarray]] = blocks) -> UnitRecord:
                    return UnitRecord({"scores": write_tags(folder, blocks(), tagger.covered, floor)})

                samples = value_digest([row.key for row in rows])  # by which a table gives scores
                units[shard] = cache.get({**inputs, "pictures": self.pictures[shard], "samples": samples}, write)
                bar.advance(len(rows))
        return units

    def joined(
        self,
        text: Mapping[str, Unit],
        mode: MatchMode,
        tags: Mapping[str, Unit] | None,
        covered: np.ndarray,
        thresholds: np.ndarray,
    ) -> dict[str, Unit]:
        """Hits of both sides by shard, with their counts."""
        cache, units = WorkCache(self.work, STAGE), {}
        for shard, rows in self.sizes.items():

            def write(folder: Path, shard: str = shard, rows: int = rows) -> UnitRecord:
                sets = read_bitmaps(text[shard].file(TEXT))
                image = None if tags is None else image_hits(tags[shard].file(TAGS), thresholds)
                hits = ShardHits(rows, sets["bag"], sets["phrase"], image)
                write_json(folder / COUNTS, count_shard(hits, mode, covered).to_json())
                write_bitmaps(folder / HITS, sets if image is None else {**sets, "image": image})
                return UnitRecord({"samples": rows})

            inputs = {"step": "joined", "text": text[shard].sha256[TEXT], "mode": mode, "rows": rows}
            if tags is not None:
                inputs |= {"tags": tags[shard].sha256[TAGS], "thresholds": as_stored(thresholds).tolist()}
                inputs |= {"covered": covered.tolist()}
            units[shard] = cache.get(inputs, write)
        return units

    def _over_shards(
        self,
        step: Literal["nouns", "words", "hits"],
        title: str,
        inputs: Callable[[str], Mapping[str, Any]],
        own: Callable[[str], Mapping[str, Any]] = lambda shard: {},
        **values: Any,
    ) -> dict[str, Unit]:
        tasks = [
            _Task(
                step,
                shard,
                self.captions,
                self.work,
                {
                    "step": step,
                    "normaliser": self._normaliser,
                    **self.captions.identity(shard),
                    **inputs(shard),
                },
                **own(shard),
                **values,
            )
            for shard in self.sizes
        ]
        units = map_units(_compute, tasks, self.workers, title, "shards")
        return dict(zip(self.sizes, units, strict=True))


def merged(units: Mapping[str, Unit]) -> Counts:
    """The sum of the counts of all shards."""
    parts = [Counts.from_json(json.loads(unit.file(COUNTS).read_text("utf-8"))) for unit in units.values()]
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
