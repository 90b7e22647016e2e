"""BLEU-4 and CIDEr-D against values worked out by hand from their formulas."""

from __future__ import annotations

import math

import pytest

from flame_core.captioning.scores import bleu, cider, words


def test_words_are_lower_case_without_punctuation():
    assert words("A dog's ball, well-worn; on the_grass!") == ("a", "dog's", "ball", "well-worn", "on", "the", "grass")
    assert words("Ein großer Hund. 3 Bälle") == ("ein", "großer", "hund", "3", "bälle")


def test_bleu_by_hand():
    # 6 words, all n-grams but those with `mat`: p = 5/6, 4/5, 3/4, 2/3, so their product is 1/3; no brevity penalty
    assert bleu(["the cat is on the mat"], [["the cat is on the rug"]]) == pytest.approx((1 / 3) ** 0.25)
    # 5 words against 7: all n-grams are there, so only the brevity penalty is left
    assert bleu(["a b c d e"], [["a b c d e f g"]]) == pytest.approx(math.exp(1 - 7 / 5))
    # `the` counts at most twice, as in one reference
    given = [["the cat sat on the mat", "a cat there"]]
    assert bleu(["the the the the"], given) == 0
    # p_1 = (2 + 4) / 8, p_2 = 3 / 6, p_3 = 2 / 4, p_4 = 1 / 2 over both texts; lengths 4 + 4 and 3 + 4
    both = bleu(["the the the the", "a b c d"], [["the the mat"], ["a b c d"]])
    assert both == pytest.approx((6 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25)


def test_the_reference_nearest_in_length_counts():
    assert bleu(["a b c d"], [["a b c d e f", "a b c d e"]]) == pytest.approx(math.exp(1 - 5 / 4))
    assert bleu(["a b c d"], [["a b c", "a b c d x"]]) == pytest.approx((1 * 1 * 1 * 1) ** 0.25)  # the shorter of two


def test_cider_by_hand():
    # two pictures; every n-gram of `a b c d` is in one of them, so its weight is ln 2; x y z w has none of them
    references = [["a b c d"], ["x y z w"]]
    assert cider(["a b c d", "x y z w"], references) == pytest.approx([10, 10])
    assert cider(["p q r s", ""], references) == [0, 0]
    # `a b`: 2 of 4 words: 1 / (sqrt 2 * sqrt 4) * 2; 1 of 3 pairs: 1 / sqrt 3; length 2 against 4: exp(-4 / 72)
    expected = 10 / 4 * math.exp(-4 / 72) * (2 / math.sqrt(8) + 1 / math.sqrt(3))
    assert cider(["a b", "x y z w"], references)[0] == pytest.approx(expected)
    # written twice it counts once: min(2, 1) * 1 / (2 * sqrt 4) for words; length 2 against 4
    assert cider(["a a", ""], references)[0] == pytest.approx(10 / 4 * math.exp(-4 / 72) * 1 / (2 * 2))


def test_an_n_gram_of_all_pictures_counts_nothing_and_references_are_averaged():
    references = [["the dog", "the cat"], ["the hen"]]
    # `the` has weight ln 1 = 0; `dog` ln 2, so unigrams give 1 against the first reference and 0 against the second
    pair = 1.0  # `the dog` has weight ln 2 too
    expected = 10 / 4 * ((1 + pair) + 0) / 2
    assert cider(["the dog", "the"], references) == pytest.approx([expected, 0])
