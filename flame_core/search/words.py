"""Search by words, and what a score is made of, for models whose dimensions are words (`model.head: lexical`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from flame_core.errors import InputError
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.values import only_active
from flame_core.lexical.vocabulary import Vocabulary

EXPLAINED = 6  # words per picture

Parts = tuple[tuple[str, float], ...]
"""Words with their shares of a score, the largest first."""


@dataclass(frozen=True)
class AskedWords:
    """Words of a search: their texts, and for each the places in the vocabulary at which it stands."""

    texts: list[str]
    places: list[list[int]]


def asked_words(text: str, vocabulary: Vocabulary) -> AskedWords:
    """The words of `dog, grass`; a word stands once for each of its tokens, such as `dog`, ` dog` and ` Dog`.

    Raises:
        InputError: there is none, or one that the vocabulary lacks.
    """
    texts = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not texts:
        raise InputError("no words to look for: write them with commas between, such as 'dog, grass'")
    places = [vocabulary.places(word) for word in texts]
    if missing := [word for word, own in zip(texts, places, strict=True) if not own]:
        raise InputError(
            f"the model's {len(vocabulary):,} words do not hold {', '.join(map(repr, missing))}: ask for other words, "
            "or ask with a text, which may be of any words"
        )
    return AskedWords(texts, places)


class WordIndex:
    """Pictures by their active words: a sparse matrix [V, N] by rows, so that a search reads only the asked words."""

    def __init__(self, vectors: np.ndarray) -> None:
        """Take unit vectors [N, V]."""
        self.by_word = sparse.csr_array(only_active(vectors).T.astype(np.float32))
        self.pictures = len(vectors)

    @property
    def active(self) -> float:
        """Mean number of active words per picture."""
        return self.by_word.nnz / max(1, self.pictures)

    def search(self, asked: AskedWords, top: int) -> list[tuple[int, float, Parts]]:
        """The best pictures that have one of the words: number, score, and each asked word's share of it.

        A score is the sum of the weights of the asked words; equal ones keep the order of the pictures.
        """
        shares = np.stack([self.by_word[own].sum(axis=0) for own in asked.places])  # [words, N]
        scores = shares.sum(axis=0)
        order = [int(row) for row in np.argsort(-scores, kind="stable")[:top] if scores[row] > 0]
        return [(row, float(scores[row]), _parts(zip(asked.texts, shares[:, row], strict=True))) for row in order]


def explained(picture: np.ndarray, asked: np.ndarray, lexicon: Lexicon) -> Parts:
    """The words with the largest shares of <picture, asked>, both [V]; tokens of one word are added up."""
    products = picture.astype(np.float64) * asked
    together: dict[str, float] = {}
    for place in np.argsort(-products, kind="stable")[: 8 * EXPLAINED]:
        word = lexicon.vocabulary.words[place].text.casefold()
        together[word] = together.get(word, 0.0) + float(products[place])
    return _parts(together.items())


def _parts(shares: Iterable[tuple[str, float]]) -> Parts:
    pairs = [(word, float(share)) for word, share in shares if share > 0]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:EXPLAINED])
