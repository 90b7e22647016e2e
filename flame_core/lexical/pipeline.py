"""The steps of `flame lexical` as units of a work cache: a killed one continues with the shard that it was working on.

1. per shard, the sum of its captions' vectors, for the words' mean logits (`lexical.center`);
2. per shard, how many captions have each word among their `top`, to choose words (`lexical.words`);
3. per shard, the heaviest words of each caption, and how many captions a word is active in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from flame_core.data.shards import Index
from flame_core.data.sidecars import write_values
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.values import heaviest, is_active, pack, unpack
from flame_core.params import LexicalParams
from flame_core.reporting import progress
from flame_core.text.store import Drawn, TrainStore
from flame_core.work import Unit, UnitRecord, WorkCache

_FILE, _ARRAY = "values.safetensors", "values"  # of a unit
USE = "use"  # in a unit of words: captions of the shard by word that is active in them


@dataclass(frozen=True)
class Worded:
    """The final lexicon, a unit of words per shard, and how many captions each word is active in [V]."""

    lexicon: Lexicon
    units: dict[str, Unit]
    use: np.ndarray
    captions: int


@dataclass(frozen=True)
class Wording:
    """Words for the captions of an index; `run` computes what is not in the cache.

    Attributes:
        params: of the section.
        lexicon: of all words of the rule, not centred.
        store: of the vectors.
        sha256: digests of the store's files of sentences by name.
        slots: which of a sample's vectors are used.
        index: all rows of the training split.
        cache: of the stage.
        name: of the sidecar.
    """

    params: LexicalParams
    lexicon: Lexicon
    store: TrainStore
    sha256: Mapping[str, str]
    slots: Sequence[int]
    index: Index
    cache: WorkCache
    name: str

    def run(self) -> Worded:
        """All steps, in order."""
        lexicon = self._chosen(self._centred())
        inputs = {"words": lexicon.digest}
        units = self._by_shard("words", {**inputs, "top": self.params.top}, lambda shard: self._words(lexicon, shard))
        use = sum((load_file(unit.file(f"{USE}.safetensors"))[_ARRAY] for unit in units.values()), np.zeros(1, int))
        return Worded(lexicon, units, use, sum(self._sizes.values()) * len(self.slots))

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return dict(sorted(self.index.shard_sizes().items()))

    def _centred(self) -> Lexicon:
        if not self.params.center:
            return self.lexicon
        units = self._by_shard("mean", {}, lambda shard: lambda folder: self._sum(shard, folder))
        sums = sum((load_file(unit.file(_FILE))[_ARRAY] for unit in units.values()), np.zeros(self.lexicon.dims))
        return self.lexicon.centred(sums, sum(self._sizes.values()) * len(self.slots))

    def _chosen(self, lexicon: Lexicon) -> Lexicon:
        wanted = self.params.words
        if wanted is None or wanted >= len(lexicon.vocabulary):
            return lexicon
        inputs = {"from": lexicon.digest}
        units = self._by_shard(
            "choose",
            {**inputs, "top": self.params.top},
            lambda shard: lambda folder: self._count(lexicon, shard, folder),
        )
        counts = sum((load_file(unit.file(_FILE))[_ARRAY] for unit in units.values()), np.zeros(1, int))
        return lexicon.only(heaviest(counts[None], wanted)[0])

    def _by_shard(
        self, what: str, inputs: Mapping[str, object], write: Callable[[str], Callable[[Path], UnitRecord]]
    ) -> dict[str, Unit]:
        units = {}
        with progress(what, len(self._sizes), "shards") as bar:
            for shard in self._sizes:
                own = self.sha256[Path(shard).with_suffix(".safetensors").name]
                slots = [self.store.facets[slot] for slot in self.slots]
                units[shard] = self.cache.get({"step": what, "vectors": own, "slots": slots, **inputs}, write(shard))
                bar.advance()
        return units

    def _blocks(self, shard: str, at_once: int) -> Iterator[np.ndarray]:
        """The vectors [n, K, D] of a shard's samples, some at a time."""
        size = max(1, at_once // len(self.slots))
        for start in range(0, self._sizes[shard], size):
            rows = range(start, min(start + size, self._sizes[shard]))
            yield self.store.read([Drawn(shard, row, self.slots) for row in rows]).float().numpy()

    def _sum(self, shard: str, folder: Path) -> UnitRecord:
        total = np.zeros(self.lexicon.dims)
        for block in self._blocks(shard, 4096):
            total += block.astype(np.float64).reshape(-1, self.lexicon.dims).sum(axis=0)
        return _written(folder, total, self._sizes[shard])

    def _count(self, lexicon: Lexicon, shard: str, folder: Path) -> UnitRecord:
        counts = np.zeros(len(lexicon.vocabulary), dtype=np.int64)
        for block in self._blocks(shard, lexicon.at_once):
            logits = lexicon.logits(block.reshape(-1, lexicon.dims))
            counts += np.bincount(heaviest(logits, self.params.top).ravel(), minlength=len(counts))
        return _written(folder, counts, self._sizes[shard])

    def _words(self, lexicon: Lexicon, shard: str) -> Callable[[Path], UnitRecord]:
        words = len(lexicon.vocabulary)

        def write(folder: Path) -> UnitRecord:
            packed, use = [], np.zeros(words, dtype=np.int64)
            for block in self._blocks(shard, lexicon.at_once):
                own = pack(lexicon.logits(block.reshape(-1, lexicon.dims)), self.params.top)
                numbers, weights = unpack(own)
                use += np.bincount(numbers[is_active(weights, words)], minlength=words)
                packed.append(own.reshape(len(block), len(self.slots), -1))
            write_values(folder, self.name, np.concatenate(packed))
            (folder / f"{USE}.safetensors").write_bytes(save({_ARRAY: use}))
            return UnitRecord({"samples": self._sizes[shard]})

        return write


def _written(folder: Path, values: np.ndarray, samples: int) -> UnitRecord:
    (folder / _FILE).write_bytes(save({_ARRAY: values}))
    return UnitRecord({"samples": samples})
