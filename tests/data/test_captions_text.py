from __future__ import annotations

import time

import pytest

from flame_core.data.captions_text import (
    clean_caption,
    clean_captions,
    primary_language,
    same_text,
    text_id,
    unescape,
    word_count,
)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a\t\n b\r\n\x00c\x1b ", "a b c"),
        ("\ufeffa\u2028b\u00a0c\u200bd", "a b c d"),
        ("\ufeffw\u2060j \u2060x", "wj x"),
        ("Cafe\u0301", "Café"),
        ("\"quotes\" 'and' {caption} <|endoftext|>", "\"quotes\" 'and' {caption} <|endoftext|>"),
        ("क्षत्रिय\u200dक", "क्षत्रिय\u200dक"),  # a joiner means something
        ("\x00\n", ""),
        ("a dog &amp; a&nbsp;cat&#10;on a sofa", "a dog & a cat on a sofa"),
        ("&ZeroWidthSpace;", ""),
        ("\u200b\u200d\ufeff", ""),  # nothing but what nobody sees
        ("\u200e \u00ad\u202b", ""),
        ("👩\u200d👧", "👩\u200d👧"),
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


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Tom&#39;s &quot;caf&eacute;&quot; &#x2014; 5 &lt; 6", 'Tom\'s "café" — 5 < 6'),
        ("&#150; &#x80;", "– €"),  # as browsers read the numbers of cp1252
        ("&lt;b&gt;bold&lt;/b&gt;", "<b>bold</b>"),  # text that shows a tag; nothing is taken out
        ("a &amp;amp; b &amp;amp;amp; c", "a & b & c"),  # escaped twice, and thrice
        ("&amp;lt;b&amp;#38;gt;", "<b>"),
        ("&amp;nosuchname; &nosuchname;", "&nosuchname; &nosuchname;"),
        ("AT&T, R&D; Q & A; ?a=1&copy=2&reg &lt", "AT&T, R&D; Q & A; ?a=1&copy=2&reg &lt"),  # not ended by ;
        ("&#0; &#xD800; &#1114112; &#x110000;", "&#0; &#xD800; &#1114112; &#x110000;"),  # no characters
        ("", ""),
        ("&", "&"),
    ],
)
def test_character_references(text: str, plain: str):
    assert unescape(text) == plain
    assert unescape(plain) == plain


def test_character_references_take_linear_time():
    begin = time.process_time()
    for piece in ("&", "&amp;", "&amp", "&a", "&#38;", "&amp;lt;"):
        unescape(piece * 100_000)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("a small bird.", 3), ("两只狗打架", 2.5), ("犬 and cat", 2.5), ("Ⅻ straße", 2)]
)
def test_words_are_counted_in_scripts_without_spaces_too(text, words):
    assert word_count(text) == words
