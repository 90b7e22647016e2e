"""Search by words, and what a score is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flame_core.errors import InputError
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.search.words import WordIndex, asked_words, explained

WORDS = ["dog", "Dog", "grass", "boat", "of"]
VOCABULARY = Vocabulary(tuple(Word(i, text, True) for i, text in enumerate(WORDS)))
PICTURES = np.array(
    [
        [0.6, 0.6, 0.5, 0.1, 0.1],  # a dog on grass
        [0.1, 0.1, 0.9, 0.1, 0.4],  # grass
        [0.1, 0.1, 0.1, 0.98, 0.1],  # a boat
        [0.0, 0.9, 0.0, 0.0, 0.43],  # a dog
    ],
    dtype=np.float32,
)


def test_pictures_with_the_asked_words_come_first_and_say_why():
    index = WordIndex(PICTURES)
    found = index.search(asked_words("dog, grass", VOCABULARY), 10)
    assert [number for number, _, _ in found] == [0, 1, 3]  # the boat has neither
    assert found[0][1] == pytest.approx(1.7) and dict(found[0][2]) == pytest.approx({"dog": 1.2, "grass": 0.5})
    assert found[1][2] == (("grass", pytest.approx(0.9)),)
    assert [number for number, _, _ in index.search(asked_words("BOAT", VOCABULARY), 10)] == [2]
    assert index.active == pytest.approx((3 + 1 + 1 + 1) / 4)


def test_equal_scores_keep_the_order_of_the_pictures():
    same = np.tile(PICTURES[:1], (5, 1))
    assert [number for number, _, _ in WordIndex(same).search(asked_words("dog", VOCABULARY), 3)] == [0, 1, 2]


def test_sparse_and_dense_rankings_agree_on_pictures_with_disjoint_words():
    pictures = np.eye(5, dtype=np.float32)[[0, 3]]
    for word, right in (("dog", 0), ("boat", 1)):
        asked = asked_words(word, VOCABULARY)
        query = np.zeros(5)
        query[[place for own in asked.places for place in own]] = 1
        assert WordIndex(pictures).search(asked, 1)[0][0] == (pictures @ query).argmax() == right


def test_an_unknown_word_is_named():
    with pytest.raises(InputError, match=r"5 words do not hold 'cat', 'Katze'"):
        asked_words("dog, cat, Katze", VOCABULARY)
    with pytest.raises(InputError, match="no words to look for"):
        asked_words(" , ", VOCABULARY)


def test_the_parts_of_a_score_are_its_products_by_word():
    lexicon = Lexicon(VOCABULARY, torch.zeros(5, 2), np.zeros(5), 1.0)
    asked = np.array([0.5, 0.5, 0.7, 0.0, 0.1])
    parts = dict(explained(PICTURES[0], asked, lexicon))
    assert parts == pytest.approx({"dog": 0.6, "grass": 0.35, "of": 0.01})
    assert sum(parts.values()) == pytest.approx(float(PICTURES[0] @ asked))
