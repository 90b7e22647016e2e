from __future__ import annotations

import pytest

from flame_core.data.captions_text import clean_caption, clean_captions, primary_language, same_text, text_id


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a\t\n b\r\n\x00c\x1b ", "a b c"),
        ("\ufeffa\u2028b\u00a0c\u200bd", "a b c d"),
        ("Cafe\u0301", "Café"),
        ("\"quotes\" 'and' {caption} <|endoftext|>", "\"quotes\" 'and' {caption} <|endoftext|>"),
        ("क्षत्रिय\u200dक", "क्षत्रिय\u200dक"),  # a joiner means something
        ("\x00\n", ""),
    ],
)
def test_cleaning(text, cleaned):
    assert clean_caption(text, 100) == (cleaned, False)
    assert clean_caption(cleaned, 100) == (cleaned, False)


def test_a_long_caption_is_cut():
    cleaned, cut = clean_caption("word " * 20_000, 1000)
    assert cut and cleaned == ("word " * 200).strip()
    assert clean_caption("x" * 10, 10) == ("x" * 10, False)


def test_captions_are_sorted_unique_and_counted():
    cleaned, cuts = clean_captions({"sv": ["  "], "fr": ["b", "a", " b "], "en": ["x" * 30]}, 10)
    assert (cleaned, cuts) == ({"en": ["x" * 10], "fr": ["b", "a"]}, 1)
    assert list(cleaned) == ["en", "fr"]


def test_english_decides_where_there_is_any():
    assert primary_language({"de": ["x"], "en": ["y"]}) == "en"
    assert primary_language({"pl": ["x"], "de": ["y"]}) == "de"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A frog.", "a  FROG", True),
        ("Straße", "STRASSE!", True),
        ("ﬁsh", "fish", True),
        ("a frog", "two frogs", False),
        ("+", "÷", False),
        ("!!!", "???", False),
        ("की", "का", False),  # vowel signs are no punctuation
        ("C", "C++", False),
    ],
)
def test_when_captions_are_the_same(one, other, same):
    assert (same_text(one) == same_text(other)) is same


def test_text_ids_are_fixed_for_good():
    assert text_id("a frog") == 0x8BAACBD0212B8858
