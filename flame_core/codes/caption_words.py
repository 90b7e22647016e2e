"""The words of captions, counted once per sample: what a data set, or a selection of it, speaks of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flame_core.captions.table import read_captions

_WORD = re.compile(r"[^\W\d_]{3,}")


def words_of_samples(captions: Path, language: str) -> Iterator[tuple[str, set[str]]]:
    """(key, words of three letters or more, in lower case) of the raw captions in a language.

    Args:
        captions: a captions file of one shard; a sample's captions stand together.
        language: of the captions.
    """
    key, words = "", set[str]()
    for caption in read_captions(captions):
        if caption.kind != "raw" or caption.language != language:
            continue
        if caption.key != key:
            if words:
                yield key, words
            key, words = caption.key, set()
        words.update(_WORD.findall(caption.text.lower()))
    if words:
        yield key, words


def word_counts(folder: Path, language: str) -> Counter[str]:
    """How many samples have a raw caption with each word, over all captions files of a folder."""
    found: Counter[str] = Counter()
    for path in sorted(folder.glob("*.parquet")):
        for _, words in words_of_samples(path, language):
            found.update(words)
    return found


def by_frequency(counts: Counter[str]) -> list[str]:
    """Words from the most frequent to the least; equally frequent ones in alphabetical order."""
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
