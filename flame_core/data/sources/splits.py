"""The words that people use for a split, and what each means.

Training is `train`, `training` or Karpathy's `restval`; validation is `val`, `valid`, `validation` or `dev`; case and
spaces do not matter. Any other word (usually `test`) names a part that should stay separate: such pairs are in neither
split. The listing keeps them under that word, and ingest counts them as `other_split`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from flame_core.data.sources import RawPair

_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
}
_PARTS = {**_WORDS, **dict.fromkeys(("test", "testing"), "test")}
_LONGEST = 80  # characters of a word that are kept


def split_of(values: Iterable[Any]) -> str | None:
    """`train`, `val`, another word (the pair is left out), or None if no split is given.

    `values` are the splits in the records of one picture; if they disagree, the result joins all their words.
    """
    words = dict.fromkeys(word for value in values if (word := _word(value)))
    splits = dict.fromkeys(_WORDS.get(word, word) for word in words)
    return ", ".join(words if len(splits) > 1 else splits) or None


def in_split(pair: RawPair, split: Literal["train", "val"] | None) -> RawPair:
    """A pair of a file or source that is all in `split`, if that is given; what its record keeps apart stays so."""
    left_out = pair.split not in (None, *_WORDS.values()) and split != "val"
    return pair if split is None or left_out else replace(pair, split=split)


def part_of(word: str) -> str | None:
    """The part of a data set that a word names: `train`, `val` or `test`; None if it names none."""
    return _PARTS.get(_word(word))


def _word(value: Any) -> str:
    if value is None or value != value:  # empty cells of tables: null and NaN
        return ""
    return " ".join(str(value).casefold().split())[:_LONGEST]
