from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.record import RecordReader, keyword_list, read_object
from flame_core.data.text_files import TextError

READER = RecordReader(("caption", "captions"), "de", "album", "CC0")


@pytest.mark.parametrize(
    ("record", "captions"),
    [
        ({"caption": "Ein Hund"}, {"de": ["Ein Hund"]}),
        ({"caption": "A dog", "language": "en"}, {"en": ["A dog"]}),
        ({"caption": "A dog", "language": "English"}, {"en": ["A dog"]}),
        ({"caption": "A dog", "language": "EN"}, {"en": ["A dog"]}),
        ({"caption": "Um cão", "lang": "PT-BR"}, {"pt-BR": ["Um cão"]}),
        ({"caption": "nuqneH", "lang": "Klingonaase"}, {"Klingonaase": ["nuqneH"]}),
        ({"caption": {"EN": "One", "French": ["Un"], "de": "Eins"}}, {"en": ["One"], "fr": ["Un"], "de": ["Eins"]}),
        ({"caption": '{"EN": "One", "FR": "Un"}'}, {"en": ["One"], "fr": ["Un"]}),
        ({"captions": ["Eins", "Zwei", "Eins", None, 3]}, {"de": ["Eins", "Zwei"]}),
        (
            {"captions": {"en": "One", "fr": ["Un", "Une"]}, "caption": "Eins"},
            {"de": ["Eins"], "en": ["One"], "fr": ["Un", "Une"]},
        ),
        ({"caption": None, "captions": 7}, {}),
        ({"captions": [{"raw": "A man", "tokens": ["a", "man"]}, {"raw": "A boy"}]}, {"de": ["A man", "A boy"]}),
        ({"captions": [{"id": 1, "caption": "a boat"}]}, {"de": ["a boat"]}),
        ({"captions": {"id": 1, "caption": "a boat"}}, {"de": ["a boat"]}),
        (
            {"captions": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "a boat"}]},
            {"de": ["a boat"]},
        ),
        ({"captions": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]}, {"de": ["a"]}),
        ({"captions": [{"from": "human", "value": "What is it?"}]}, {}),
        ({"caption": '[{"from": "human", "value": "?"}, {"from": "gpt", "value": "a boat"}]'}, {"de": ["a boat"]}),
        ({"caption": "[{'from': 'human', 'value': '?'}, {'from': 'gpt', 'value': 'a boat'}]"}, {"de": ["a boat"]}),
        ({"captions": [{"en": "One", "fr": "Un"}, "Eins"]}, {"en": ["One"], "fr": ["Un"], "de": ["Eins"]}),
        ({"caption": '["A dog runs.", "A cat."]'}, {"de": ["A dog runs.", "A cat."]}),
        ({"caption": "['A dog\\'s tail', 'A cat']"}, {"de": ["A dog's tail", "A cat"]}),
        ({"caption": '{"en": "One", "fr": ["Un", "Une"]}'}, {"en": ["One"], "fr": ["Un", "Une"]}),
        ({"caption": "[untitled]"}, {"de": ["[untitled]"]}),
        ({"caption": "[1, 2]"}, {"de": ["[1, 2]"]}),
        ({"caption": "[]"}, {}),
        ({"caption": " {} ", "captions": ["Eins"]}, {"de": ["Eins"]}),
        ({"caption": "{a} [b]"}, {"de": ["{a} [b]"]}),
    ],
)
def test_captions_of_a_record(record, captions):
    assert READER.pair("k", None, [record]).captions == captions


def test_records_of_one_picture_add_up():
    records = [
        {"caption": "Eins", "keywords": "a, b", "album": 17},
        {"caption": "Zwei", "title": "Titel", "keywords": ["c"], "license": "MIT", "split": "val", "category": "x/y"},
    ]
    pair = READER.pair("k", None, records, texts=["Null"], folders="folder")
    assert pair.captions == {"de": ["Null", "Eins", "Zwei"]}
    assert (pair.title, pair.keywords, pair.licence, pair.category) == ("Titel", ["a", "b"], "MIT", "x/y")
    assert (pair.group, pair.split) == ("17", "val")


def test_what_a_record_does_not_say():
    pair = READER.pair("k", None, [{"split": None, "title": "  ", "album": float("nan")}], folders="animals/birds")
    assert (pair.licence, pair.category, pair.group, pair.split, pair.title) == ("CC0", None, None, None, None)


def test_folders_are_a_category_if_the_source_says_so():
    reader = replace(READER, folders_are_categories=True)
    assert reader.pair("k", None, [{}], folders="animals/birds").category == "animals/birds"
    assert reader.pair("k", None, [{"category": "x"}], folders="animals/birds").category == "x"
    assert reader.pair("k", None, [{}], folders=None).category is None


def test_a_split_of_another_name_is_kept_as_it_is():
    assert READER.pair("k", None, [{"split": "Test"}]).split == "test"
    assert READER.pair("k", None, [{"split": "val"}, {"split": "test"}]).split == "val, test"


@pytest.mark.parametrize("nothing", [None, "", " ", float("nan")])
def test_a_row_without_a_language_is_in_the_sources(nothing: object):
    records = [{"caption": "Eins", "lang": nothing, "language": nothing}, {"caption": "One", "lang": "en"}]
    assert READER.pair("k", None, records).captions == {"de": ["Eins"], "en": ["One"]}


def test_all_fields_that_are_looked_at():
    assert READER.fields[:2] == ("caption", "captions")
    assert READER.fields[-1] == "album"


@pytest.mark.parametrize(
    ("value", "keywords"),
    [
        ("a, b;c", ["a, b", "c"]),
        (["a", " ", 4, None], ["a", "4"]),
        (None, []),
        ({"a": 1}, []),
        ("", []),
        ("R&amp;B, soul", ["R&B", "soul"]),
        (["a &lt; b;"], ["a < b;"]),
    ],
)
def test_keywords(value, keywords):
    assert keyword_list(value) == keywords


@pytest.mark.parametrize(
    ("record", "kinds"),
    [
        ({"category": ["animals", "birds"]}, ["category as a list"]),
        ({"category": {"id": 1}, "title": True}, ["category as an object", "title as true or false"]),
        (
            {"license": ["MIT"], "lang": ["de"], "album": [1]},
            ["album as a list", "lang as a list", "license as a list"],
        ),
        ({"keywords": {"a": 1}}, ["keywords as an object"]),
        ({"keywords": 7}, ["keywords as a number"]),
        ({"keywords": ["a", 4, None, {"name": "b"}]}, ["keywords as an object"]),
        ({"captions": ["Eins", 3, None, 4]}, ["captions as a number"]),
        ({"captions": [{"from": "human", "value": "What is it?"}]}, ["captions as an object"]),
        ({"caption": "Eins", "captions": False}, ["captions as true or false"]),
        ({"other": ["x"], "category": 3, "title": " ", "keywords": ["a"], "split": ["val"]}, []),
        ({"category": [], "title": {}, "keywords": None, "caption": float("nan"), "captions": "[]"}, []),
    ],
)
def test_values_that_no_rule_reads_are_counted(record, kinds):
    unused = Unused()
    READER.pair("k", None, [record], unused=unused)
    assert [(row.reason, row.kind, row.count, row.examples) for row in unused.rows()] == [
        ("unread_value", kind, 1, [kind.partition(" as ")[0]]) for kind in kinds
    ]


def test_titles_are_unescaped():
    assert READER.pair("k", None, [{"title": "Tom &amp;amp; Jerry"}]).title == "Tom & Jerry"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_objects_in_every_encoding_of_json(encoding: str):
    assert read_object('{"a": "naïve 猫"}'.encode(encoding)) == {"a": "naïve 猫"}


def test_objects_in_an_encoding_that_is_asked_for():
    content = '{"a": "naïve"}'.encode("cp1252")
    assert read_object(content, "cp1252") == {"a": "naïve"}
    with pytest.raises(TextError, match="line 1 is not utf-8: byte 0xef"):
        read_object(content)


@pytest.mark.parametrize("content", ["", "[1]", "null", '"a"', "{nope", "1" * 5000, '{"a": 1}x'])
def test_what_is_no_object(content: str):
    with pytest.raises(TextError, match=r"^not a JSON object$"):
        read_object(content)


@pytest.mark.parametrize("depth", [33, 970, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_objects_that_are_nested_too_deeply(depth: int, begin: str, end: str):
    inner = begin * depth + "1" + end * depth
    with pytest.raises(TextError, match="nested more than 32 deep"):
        read_object(f'{{"caption": {inner}}}')


def test_objects_that_are_nested_and_wide():
    value = {"a": [[i] for i in range(1000)], "b": {"c": [{"d": [1]}]}}
    assert read_object(json.dumps(value)) == value
    deep = "[" * 31 + "1" + "]" * 31
    assert read_object(f'{{"a": {deep}}}')["a"]


@pytest.mark.parametrize("depth", [900, 100_000])
def test_lists_however_deep_take_no_recursion(depth):
    value: object = "deep"
    for _ in range(depth):
        value = [value]
    assert READER.pair("k", None, [{"captions": value, "caption": "first"}]).captions == {"de": ["first", "deep"]}
