"""The words that people use for a split: what each means, and which are left out.

Training is `train`, `training` or Karpathy's `restval`, validation is `val`, `valid`, `validation` or `dev`; case and
spaces do not matter. Every other word (`test` above all) names a part that somebody meant to keep apart: such pairs
are in neither split. They stay in the list under that word, and ingest counts them as `other_split`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
}
_LONGEST = 80  # characters of a word that are kept


def split_of(values: Iterable[Any]) -> str | None:
    """`train`, `val`, another word (the pair is left out), or None where nothing is said.

    `values` are what the records of one picture have as their split; where they disagree, all of their words.
    """
    words = dict.fromkeys(word for value in values if (word := _word(value)))
    splits = dict.fromkeys(_WORDS.get(word, word) for word in words)
    return ", ".join(words if len(splits) > 1 else splits) or None


def _word(value: Any) -> str:
    if value is None or value != value:  # what tables have for nothing: null and NaN
        return ""
    return " ".join(str(value).casefold().split())[:_LONGEST]
