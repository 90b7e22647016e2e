"""Chooses the examples in the report.

They are drawn by the digest of a key (texts with the most translations first), never by their results. Only the
failures are chosen by result: the worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.digest import text_sha256
from flame_core.measuring.classification import Lookup
from flame_core.measuring.measures import Evaluation
from flame_core.measuring.similarity import best_candidates

CONCEPTS, LANGUAGES_EACH, TOP_PICTURES = 6, 4, 5
PICTURES, TOP_TEXTS = 8, 4
FAILURES, TOP_WRONG = 6, 4


@dataclass(frozen=True)
class Found:
    """A candidate found by a query: a picture's row in the split, or a text."""

    picture: int
    text: str
    score: float
    right: bool


@dataclass(frozen=True)
class TextQuery:
    """A text and the pictures it found; `rank` is that of the first right one, out of `gallery` pictures."""

    language: str
    text: str
    found: list[Found]
    rank: int
    gallery: int


@dataclass(frozen=True)
class Concept:
    """The caption of one picture in several languages, each a separate query."""

    picture: int
    queries: list[TextQuery]


@dataclass(frozen=True)
class PictureQuery:
    """A picture and the texts it found in the training language."""

    picture: int
    found: list[Found]
    rank: int
    gallery: int


@dataclass(frozen=True)
class Failure:
    """A text whose right picture has one of the worst ranks of all texts."""

    picture: int  # the right one
    query: TextQuery


def concepts(evaluation: Evaluation, lookup: Lookup) -> list[Concept]:
    """Texts in the training language with their translations; the other languages take turns."""
    first, *others = evaluation.languages
    shown: list[Concept] = []
    translations = {language: _first_text(evaluation, language) for language in evaluation.languages}
    candidates = evaluation.languages[first].pairing.pictures.tolist()
    by_coverage = sorted(
        candidates,
        key=lambda row: (-sum(row in t for t in translations.values()), text_sha256(evaluation.keys[row])),
    )
    seen: set[int] = set()
    turn = 0
    for row in by_coverage:
        text = translations[first][row]
        if text in seen or len(shown) == CONCEPTS:
            continue
        seen.add(text)
        here = [language for language in others if row in translations[language]]
        chosen = [here[(turn + i) % len(here)] for i in range(min(LANGUAGES_EACH, len(here)))]
        turn += LANGUAGES_EACH
        queries = [
            text_query(evaluation, lookup, language, translations[language][row], TOP_PICTURES)
            for language in [first, *chosen]
        ]
        shown.append(Concept(row, queries))
    return shown


def picture_queries(evaluation: Evaluation, lookup: Lookup) -> list[PictureQuery]:
    """Pictures with the texts of the training language that they found."""
    result = next(iter(evaluation.languages.values()))
    pairing = result.pairing
    t = lookup("raw", pairing.texts)[:, 0]
    drawn = sorted(
        range(len(pairing.pictures)), key=lambda i: text_sha256("picture " + _key(evaluation, pairing.pictures, i))
    )
    drawn = drawn[:PICTURES]
    order, scores = best_candidates(evaluation.z[pairing.pictures[drawn]], t, TOP_TEXTS)
    ranks = result.directions["image_to_text"].ranking.ranks()
    right = _answers(pairing.edges[:, 0], pairing.edges[:, 1])
    return [
        PictureQuery(
            picture=int(pairing.pictures[query]),
            found=[
                Found(int(pairing.pictures[query]), pairing.texts[j], float(score), int(j) in right[query])
                for j, score in zip(order[at], scores[at], strict=True)
            ],
            rank=round(float(ranks[query])),
            gallery=len(pairing.texts),
        )
        for at, query in enumerate(drawn)
    ]


def failures(evaluation: Evaluation, lookup: Lookup) -> list[Failure]:
    """The texts of the training language whose right pictures have the worst ranks."""
    language, result = next(iter(evaluation.languages.items()))
    ranks = result.directions["text_to_image"].ranking.ranks()
    worst = sorted(range(len(ranks)), key=lambda i: (-ranks[i], text_sha256(result.pairing.texts[i])))[:FAILURES]
    owners = result.directions["text_to_image"].pictures
    return [
        Failure(int(owners[i]), text_query(evaluation, lookup, language, i, TOP_WRONG)) for i in worst if ranks[i] > 1
    ]


def text_query(evaluation: Evaluation, lookup: Lookup, language: str, text: int, count: int) -> TextQuery:
    """The pictures of a language's gallery that its text number `text` finds."""
    result = evaluation.languages[language]
    pairing = result.pairing
    t = lookup("raw", [pairing.texts[text]])[:, 0]
    order, scores = best_candidates(t, evaluation.z[pairing.pictures], count)
    right = set(pairing.edges[pairing.edges[:, 1] == text, 0].tolist())
    return TextQuery(
        language=language,
        text=pairing.texts[text],
        found=[
            Found(int(pairing.pictures[i]), pairing.texts[text], float(score), int(i) in right)
            for i, score in zip(order[0], scores[0], strict=True)
        ],
        rank=round(float(result.directions["text_to_image"].ranking.ranks()[text])),
        gallery=len(pairing.pictures),
    )


def _first_text(evaluation: Evaluation, language: str) -> dict[int, int]:
    """{row of a picture: its first text} in a language."""
    pairing = evaluation.languages[language].pairing
    texts: dict[int, int] = {}
    for picture, text in pairing.edges.tolist():
        texts.setdefault(int(pairing.pictures[picture]), text)
    return texts


def _answers(queries: np.ndarray, answers: np.ndarray) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for query, answer in zip(queries.tolist(), answers.tolist(), strict=True):
        found.setdefault(query, set()).add(answer)
    return found


def _key(evaluation: Evaluation, pictures: Sequence[int] | np.ndarray, index: int) -> str:
    return evaluation.keys[int(pictures[index])]
