"""Captions in the data that are not used are counted."""

from __future__ import annotations

import pytest

from flame_core.errors import InputError
from flame_core.suite.content import NotAvailable
from flame_core.suite.layouts import read_content
from tests.suite import datasets
from tests.suite.datasets import benchmark, lines, pictures, put


def test_entries_of_other_splits_and_behind_the_first_are_counted(tmp_path):
    rows = [{"split": "train", "image_file": "2.jpg", "description": "C"}]
    put(tmp_path / "set/docci_descriptions.jsonlines", lines(rows))
    (tmp_path / "set/images").mkdir()
    with pytest.raises(NotAvailable, match=r"no picture that can be used: 1 entries of other splits, such as 2.jpg"):
        read_content(benchmark("retrieval", "docci"), tmp_path)
    entries = [{"image": f"{i}.jpg", "conversations": [{"value": "?"}, {"value": "x"}]} for i in range(5)]
    put(tmp_path / "set/file.json", entries)
    pictures(tmp_path / "set", ["0.jpg"])
    definition = benchmark("retrieval", "sharegpt4v", data={"annotations": "file.json", "first": 1})
    assert read_content(definition, tmp_path).skips.counts == {"entries behind the first (data.first)": 4}


def test_why_nothing_could_be_used_is_said(tmp_path):
    (tmp_path / "set/images").mkdir(parents=True)
    put(tmp_path / "set/captions.jsonl", lines([{"image": "train/a.jpg", "captions": "one"}]))
    with pytest.raises(NotAvailable, match=r": 1 captions whose picture is missing, such as train/a.jpg"):
        read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)


def test_captions_of_a_drawing_are_counted(tmp_path):
    rows = [{"image": "a.jpg", "captions": "one"}, {"image": "b.SVG", "captions": ["two", "three"]}]
    put(tmp_path / "set/captions.jsonl", lines(rows))
    pictures(tmp_path / "set/images", ["a.jpg"])
    put(tmp_path / "set/images/b.SVG", "<svg/>")
    content = read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)
    assert [picture.name for picture in content.pictures] == ["a.jpg"] and content.captions == {"en": [(0, "one")]}
    assert content.skips.names == {
        "captions of SVG pictures, which models do not open": ["b.SVG"], "files that are no pictures": ["images/b.SVG"],
    }  # fmt: skip


def test_captions_in_other_languages_and_in_none_are_counted(tmp_path):
    rows = [
        {"image": "a.jpg", "captions": ["one", "two"], "lang": "fr"},
        {"image": "a.jpg", "captions": "three"},
        {"image": "a.jpg", "captions": "four", "lang": "de"},
    ]
    put(tmp_path / "set/captions.jsonl", lines(rows))
    pictures(tmp_path / "set/images", ["a.jpg"])
    content = read_content(benchmark("retrieval", "captions_jsonl", languages=["en", "de"]), tmp_path)
    assert content.captions == {"en": [], "de": [(0, "four")]}
    assert content.skips.counts == {
        "captions in languages that the benchmark lacks": 2, "captions without a language": 1,
    }  # fmt: skip
    content = read_content(benchmark("retrieval", "captions_jsonl", languages=["en"]), tmp_path)
    assert content.captions == {"en": [(0, "three")]}
    put(tmp_path / "set/captions.jsonl", lines([{"image": "a.jpg", "captions": "x", "lang": 5}]))
    with pytest.raises(InputError, match="line 1: 'lang' is missing or of the wrong type"):
        read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)


def test_languages_of_crossmodal3600_that_are_not_asked_for_are_counted(tmp_path):
    datasets.crossmodal(tmp_path / "set")
    content = read_content(benchmark("retrieval", "crossmodal3600"), tmp_path)
    assert content.skips.counts == {"captions in languages that the benchmark lacks": 22}
