"""The part of a report about the words of a model whose dimensions are words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flame_core.digest import text_sha256
from flame_core.lexical.text_side import LexicalTexts
from flame_core.lexical.values import is_active
from flame_core.measuring.held_out import HeldOut
from flame_core.measuring.words import TOPS

_PICTURES, _WORDS, _USED = 12, 8, 24  # that are shown
_NAMES = {"all": "all words", "active": "active words", **{f"top_{n}": f"the {n} heaviest words" for n in TOPS}}


@dataclass(frozen=True)
class PictureWords:
    """A picture by its row in the split, and its heaviest words with their weights."""

    picture: int
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class WordsShown:
    """What the section shows.

    Attributes:
        metrics: `words/...` without that beginning.
        sweep: (which words are kept, how many per picture, recall).
        pictures: some, drawn by the digest of their keys.
        used: the words that most pictures use, with their share.
    """

    metrics: dict[str, float]
    sweep: list[tuple[str, float, float]]
    pictures: list[PictureWords]
    used: list[tuple[str, float]]


def words_shown(held_out: HeldOut, k: int) -> WordsShown | None:
    """What to show of a model of words; None of any other."""
    side: Any = held_out.texts
    if not isinstance(side, LexicalTexts):
        return None
    evaluation, words = held_out.evaluation, side.lexicon.vocabulary.words
    own = {n.removeprefix("words/"): v for n, v in evaluation.metrics.items() if n.startswith("words/")}
    sweep = [
        (title, own[f"{name}/words"], own[f"{name}/recall@{k}"])
        for name, title in _NAMES.items()
        if f"{name}/words" in own
    ]
    rows = sorted(range(len(evaluation.keys)), key=lambda row: text_sha256("words " + evaluation.keys[row]))
    pictures = []
    for row in rows[:_PICTURES]:
        order = np.argsort(-evaluation.z[row], kind="stable")[:_WORDS]
        pictures.append(PictureWords(row, [(words[i].text, float(evaluation.z[row, i])) for i in order]))
    use = is_active(evaluation.z, len(words)).mean(axis=0)
    most = np.argsort(-use, kind="stable")[:_USED]
    return WordsShown(own, sweep, pictures, [(words[i].text, float(use[i])) for i in most if use[i] > 0])
