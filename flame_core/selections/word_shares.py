"""The words of the captions before and after a selection: which frequencies it keeps, which words it loses.

Concepts of the stage `concepts` may take the place of words. Frequencies are those in all samples, by decade: 1 to 9
samples, 10 to 99, and so on. Proportional selections keep the shape of the tail, capped ones flatten it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.codes.caption_words import by_frequency, words_of_samples
from flame_core.concepts.bitmaps import read_bitmaps, rows_of
from flame_core.concepts.concept_out import hits_name, read_frequencies

Counts = tuple[Counter[str], dict[str, Counter[str]]]  # samples with each word: of all, and by selection
_CHANGED, _FEWEST = 12, 10  # words that are shown, and in how many samples they must be


@dataclass(frozen=True)
class Decade:
    """Words of a decade of frequencies: how many there are, and by selection how many are left and how often.

    `left` is the share of the words that at least one selected sample has; `rate` the share of their mentions that is
    selected, over the share of samples that is: 1 if nothing changes, more if the selection prefers such words.
    """

    low: int
    high: int
    words: int
    left: dict[str, float]
    rate: dict[str, float]


@dataclass(frozen=True)
class WordShares:
    """Shares by decade, and the words that each selection raises and lowers most, as (word, samples, rate)."""

    decades: list[Decade]
    raised: dict[str, list[tuple[str, int, float]]]
    lowered: dict[str, list[tuple[str, int, float]]]


def count_words(captions: Path, language: str, selected: Mapping[str, set[str]]) -> Counts:
    """Samples with each word: of all, and of each selection of keys.

    Args:
        captions: the folder of the training captions' files.
        language: of the captions.
        selected: keys by selection.
    """
    everywhere: Counter[str] = Counter()
    within: dict[str, Counter[str]] = {name: Counter() for name in selected}
    for path in sorted(captions.glob("*.parquet")):
        for key, words in words_of_samples(path, language):
            everywhere.update(words)
            for name, keys in selected.items():
                if key in keys:
                    within[name].update(words)
    return everywhere, within


def count_concepts(folder: Path, places: Mapping[str, np.ndarray], selected: Mapping[str, np.ndarray]) -> Counts:
    """The same of the concepts in captions, as `flame concepts` counted them.

    Args:
        folder: `data/concepts`.
        places: by shard, the places of its samples among all, [rows].
        selected: by selection, whether it holds each sample, [N].
    """
    found = read_frequencies(folder)
    names = found.concepts.names
    within: dict[str, Counter[str]] = {name: Counter() for name in selected}
    everywhere: Counter[str] = Counter()
    for shard, own in places.items():
        hits = read_bitmaps(folder / hits_name(shard))[found.mode]
        for concept, rows in zip(names, map(rows_of, hits), strict=True):
            if len(rows):
                everywhere[concept] += len(rows)
                for name, holds in selected.items():
                    if count := int(holds[own[rows]].sum()):
                        within[name][concept] += count
    return everywhere, within


def word_shares(
    everywhere: Counter[str], within: Mapping[str, Counter[str]], shares: Mapping[str, float]
) -> WordShares:
    """Compare counts in selections with those in all samples.

    Args:
        everywhere: samples with each word.
        within: the same of each selection.
        shares: of the samples that each selection holds.
    """
    words = by_frequency(everywhere)
    counts = np.array([everywhere[word] for word in words], dtype=np.int64)
    own = {name: np.array([found[word] for word in words], dtype=np.int64) for name, found in within.items()}
    decades, low = [], 1
    while len(counts) and low <= counts.max():
        here = (counts >= low) & (counts < 10 * low)
        if here.any():
            total = int(counts[here].sum())
            decades.append(
                Decade(
                    low,
                    10 * low - 1,
                    int(here.sum()),
                    {name: float((found[here] > 0).mean()) for name, found in own.items()},
                    {name: float(found[here].sum() / total / shares[name]) for name, found in own.items()},
                )
            )
        low *= 10
    raised, lowered = {}, {}
    for name, found in own.items():
        rates = [
            (word, int(count), float(kept / count / shares[name]))
            for word, count, kept in zip(words, counts, found, strict=True)
            if count >= _FEWEST
        ]
        ordered = sorted(rates, key=lambda each: (-each[2], -each[1], each[0]))
        raised[name] = [each for each in ordered if each[2] > 1][:_CHANGED]
        lowered[name] = [each for each in reversed(ordered) if each[2] < 1][:_CHANGED]
    return WordShares(decades, raised, lowered)
