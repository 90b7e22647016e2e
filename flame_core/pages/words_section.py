"""The part of a report about the words of a model whose dimensions are words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flame_core.digest import text_sha256
from flame_core.lexical.text_side import LexicalTexts
from flame_core.lexical.values import is_active
from flame_core.measuring.held_out import HeldOut
from flame_core.measuring.words import TOPS
from flame_core.pages.patch_overlays import weight_overlay
from flame_core.patches.word_maps import WordMaps, word_maps

_PICTURES, _WORDS, _USED = 12, 8, 24  # that are shown
_MAPPED, _MAPS = 4, 5  # pictures with maps, and words of each
_NAMES = {"all": "all words", "active": "active words", **{f"top_{n}": f"the {n} heaviest words" for n in TOPS}}


@dataclass(frozen=True)
class PictureWords:
    """A picture by its row in the split, and its heaviest words with their weights."""

    picture: int
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class MappedPicture:
    """A picture by its row in the split, the square that the model sees, and the overlays of its heaviest words.

    Attributes:
        maps: (word, its weight, overlay).
    """

    picture: int
    view: str
    maps: list[tuple[str, float, str]]


@dataclass(frozen=True)
class WordsShown:
    """What the section shows.

    Attributes:
        metrics: `words/...` without that beginning.
        sweep: (which words are kept, how many per picture, recall).
        pictures: some, drawn by the digest of their keys.
        used: the words that most pictures use, with their share.
        mapped: the first of `pictures` with the patches that gave their words; none if the tower has no grid.
    """

    metrics: dict[str, float]
    sweep: list[tuple[str, float, float]]
    pictures: list[PictureWords]
    used: list[tuple[str, float]]
    mapped: list[MappedPicture]


def words_shown(held_out: HeldOut, k: int, jpeg: Callable[[int], bytes]) -> WordsShown | None:
    """What to show of a model of words; None of any other. `jpeg` returns a picture by its row in the split."""
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
    used = [(words[i].text, float(use[i])) for i in most if use[i] > 0]
    mapped = []
    if held_out.encoder.gives_patches:
        maps = word_maps(held_out.encoder, evaluation.z, words, rows[:_MAPPED], _MAPS, jpeg)
        mapped = [_mapped(each) for each in maps]
    return WordsShown(own, sweep, pictures, used, mapped)


def _mapped(maps: WordMaps) -> MappedPicture:
    overlays = [
        (word, weight, weight_overlay(grid, f"patches of {word}"))
        for (word, weight), grid in zip(maps.words, maps.weights, strict=True)
    ]
    return MappedPicture(maps.picture, maps.view, overlays)
