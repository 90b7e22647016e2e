from __future__ import annotations

import pytest

from flame_core.data.sources.record import RecordReader, keyword_list

READER = RecordReader(("caption", "captions"), "de", "album", "CC0")


@pytest.mark.parametrize(
    ("record", "captions"),
    [
        ({"caption": "Ein Hund"}, {"de": ["Ein Hund"]}),
        ({"caption": "A dog", "language": "en"}, {"en": ["A dog"]}),
        ({"captions": ["Eins", "Zwei", "Eins", None, 3]}, {"de": ["Eins", "Zwei"]}),
        (
            {"captions": {"en": "One", "fr": ["Un", "Une"]}, "caption": "Eins"},
            {"de": ["Eins"], "en": ["One"], "fr": ["Un", "Une"]},
        ),
        ({"caption": None, "captions": 7}, {}),
    ],
)
def test_captions_of_a_record(record, captions):
    assert READER.pair("k", None, [record]).captions == captions


def test_records_of_one_picture_add_up():
    records = [
        {"caption": "Eins", "keywords": "a, b", "album": 17},
        {"caption": "Zwei", "title": "Titel", "keywords": ["c"], "license": "MIT", "split": "val", "category": "x/y"},
    ]
    pair = READER.pair("k", None, records, texts=["Null"], category="folder")
    assert pair.captions == {"de": ["Null", "Eins", "Zwei"]}
    assert (pair.title, pair.keywords, pair.licence, pair.category) == ("Titel", ["a", "b"], "MIT", "x/y")
    assert (pair.group, pair.split) == ("17", "val")


def test_what_a_record_does_not_say():
    pair = READER.pair("k", None, [{"split": "test", "title": "  ", "album": float("nan")}], category="folder")
    assert (pair.licence, pair.category, pair.group, pair.split, pair.title) == ("CC0", "folder", None, None, None)


@pytest.mark.parametrize(
    ("value", "keywords"),
    [("a, b;c", ["a, b", "c"]), (["a", " ", 4, None], ["a", "4"]), (None, []), ({"a": 1}, []), ("", [])],
)
def test_keywords(value, keywords):
    assert keyword_list(value) == keywords


@pytest.mark.parametrize("depth", [900, 100_000])
def test_lists_however_deep_take_no_recursion(depth):
    value: object = "deep"
    for _ in range(depth):
        value = [value]
    assert READER.pair("k", None, [{"captions": value, "caption": "first"}]).captions == {"de": ["first", "deep"]}
