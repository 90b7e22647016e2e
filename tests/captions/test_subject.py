from __future__ import annotations

import pytest

from flame_core.captions.subject import Subject, find_subject, fold, noun_phrase, with_colour


@pytest.mark.parametrize(
    ("raw", "phrase"),
    [
        ("An owl.", "An owl"),
        ("  a   dog\n", "A dog"),
        ("Queen. Can move in any direction.", "Queen"),
        ("Saturn—the second largest planet in our solar system.", "Saturn"),
        ("“Crossroads”.", "Crossroads"),
        ("A picture of a small boat.", "A small boat"),
        ("A orange circle.", "An orange circle"),
        ("a picture of a apple on an table", "An apple on a table"),
        ("This is a fire engine!", "A fire engine"),
        ("A girl is climbing the stairs .", "A girl climbing the stairs"),
        ("Two dogs are on a bed", "Two dogs on a bed"),
        ("The yellow light means you should stop if it is safe to do so.", "The yellow light"),
        ("A US 5 cent piece ($.05) called a nickel.", "A US 5 cent piece called a nickel"),
        ("St. Basil's Cathedral in Moscow.", "St. Basil's Cathedral in Moscow"),
        ("A couple , seated , and a dog", "A couple, seated, and a dog"),
        ('A sign that says "stop"', 'A sign that says "stop"'),
        ("“Yield” means you have to wait.", "Yield"),
        ("Don't walk!", "Don't walk"),
        ("...", ""),
        ("", ""),
        ("猫", "猫"),
    ],
)
def test_noun_phrases(raw, phrase):
    assert noun_phrase(raw, 10) == phrase


def test_long_captions_are_cut_before_a_preposition():
    raw = "A child in a pink dress climbing up a set of stairs in an entry way near a garden gate"
    assert noun_phrase(raw, 12) == "A child in a pink dress climbing up a set of stairs"


def test_a_caption_of_a_hundred_thousand_characters_is_cut():
    assert noun_phrase("(" * 100_000, 10) == "(" * 40
    assert len(noun_phrase("word " * 20_000, 10).split()) == 10
    assert noun_phrase("x" * 100_000, 10) == "X" + "x" * 39


def test_control_characters_and_line_ends_become_single_spaces():
    assert fold("\x00a\tb\u2028c\u200b d\r\n") == "a b c d"


@pytest.mark.parametrize(
    ("raw", "colour", "expected"),
    [
        ("An owl.", "brown", "A brown owl"),
        ("A kite.", "orange", "An orange kite"),
        ("A umbrella.", "red", "A red umbrella"),
        ("The letter D.", "black", "The black letter D"),
        ("Some gloves.", "red and white", "Some red and white gloves"),
        ("A happy old dog.", "grey", "A happy old grey dog"),
    ],
)
def test_a_colour_stands_before_the_noun(raw, colour, expected):
    subject = find_subject({"captions": {"en": [raw]}}, 10)
    assert subject and with_colour(subject, colour) == expected


@pytest.mark.parametrize(
    "raw",
    ["Saturn.", "A spider playing football.", "A pair of shoes.", "A boy and a girl.", "Some 5 cent pieces.", "A"],
)
def test_no_colour_is_put_where_it_may_belong_to_something_else(raw):
    subject = find_subject({"captions": {"en": [raw]}}, 10)
    assert subject and subject.noun is None


def test_the_shortest_caption_is_taken_or_the_longest():
    meta = {"captions": {"en": ["A dog running in the snow.", "A dog."]}}
    assert find_subject(meta, 10) == Subject("A dog", "A", "dog")
    assert find_subject(meta, 10, longest=True) == Subject("A dog running in the snow")


def test_without_an_english_caption_the_title_is_taken_and_without_both_nothing():
    assert find_subject({"captions": {"de": ["Eine Eule."]}, "title": "snowy_owl"}, 10) == Subject("Snowy owl")
    assert find_subject({"captions": {"de": ["Eine Eule."]}, "title": None}, 10) is None


def test_colours_that_the_phrase_names():
    assert Subject("A pink and greyish gray flamingo").colours == {"pink", "grey"}
    assert not Subject("A blackbird").colours


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" a\t\n b\x00c\u2028d ", "a b c d"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्षत्रिय\u200dक", "क्षत्रिय\u200dक"),
        ("👩\u200d👧 at home", "👩\u200d👧 at home"),
        ("inter\u00adnational \ufeffw\u2060j", "international wj"),
        ("\u202eleft\u202c\u200bright", "left right"),
        ("\u200d \u200e\u200c", ""),
    ],
)
def test_a_line_keeps_its_words(text: str, line: str):
    assert fold(text) == line
    assert fold(line) == line
