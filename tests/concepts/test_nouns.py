"""Nouns of captions: the last words of noun phrases."""

from __future__ import annotations

import pytest

from flame_core.concepts.nouns import chosen_nouns, count_nouns, phrase_ends


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A frog.", ["frog"]),
        ("An albino peahen (a female peafowl, or peacock).", ["peahen", "peafowl", "peacock"]),
        ("a man riding a horse on the beach", ["man", "horse", "beach"]),
        ("Two red cars", ["cars"]),
        ("The dog is running", ["dog"]),
        ("", []),
        ("of the", []),
    ],
)
def test_phrases_end_with_their_noun(text, expected):
    assert phrase_ends(text) == expected


def test_a_word_that_rarely_ends_a_phrase_is_no_noun():
    ends, held = count_nouns(["a red car", "red cars and a dog", "dogs in the red", "a dog", "red 12"])
    assert (ends["car"], held["car"], ends["red"], held["red"], ends["dog"]) == (2, 2, 1, 4, 3)
    assert chosen_nouns(ends, held, least=1, most=9) == ["car", "dog"]
    assert chosen_nouns(ends, held, least=3, most=9) == ["dog"]
    assert chosen_nouns(ends, held, least=1, most=1) == ["dog"]
