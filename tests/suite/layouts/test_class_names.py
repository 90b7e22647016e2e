"""Files of class names and templates."""

from __future__ import annotations

import json

import pytest

from flame_core.errors import InputError
from flame_core.suite.layouts import read_content
from tests.suite import datasets
from tests.suite.datasets import COLOURS, benchmark, put


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must hold an object"),
        ({"en": "red"}, "names.json, en: the names must be a list of texts"),
        ({"en": ["red", None]}, "must be a list of texts"),
        ({"en": ["red", " "]}, "none of them empty"),
        ({"en": None}, "must be a list of texts"),
        ({"en": {"name": ["red"]}}, "names.json, en: unknown key 'name'; known keys: names, templates"),
        ({"en": {"names": COLOURS, "templates": "a {c}"}}, "templates must be a list"),
        ({"en": {"names": COLOURS, "templates": ["a _"]}}, r"'a _' has no {c} or {} for the class"),
        ({"en": [[0, 6], ["red", "blue"]]}, "names.json, en: the numbers of classes must be from 0 to 5"),
        ({"en": [[0, 0], ["red", "blue"]]}, "1 numbers of classes with 2 names"),
        ({"en": [[0, 1], ["red"]]}, "2 numbers of classes with 1 names"),
        ({"en": [[], []]}, "0 numbers of classes"),
    ],
)
def test_wrong_files_of_names_are_refused(tmp_path, names, message):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/names.json", json.dumps(names))
    task = {"kind": "classification", "class_names": "names.json"}
    with pytest.raises(InputError, match=message):
        read_content(benchmark(task, "clip_benchmark"), tmp_path)


def test_openai_templates_of_the_data_are_read_as_ours(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/zeroshot_classification_templates.txt", "a {c}\na photo of {}\n")
    content = read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    assert content.templates == {"en": ["a {c}", "a photo of {c}"]}


def test_a_language_in_capitals_may_name_some_of_the_classes(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    names = {"EN": [[0, 1, 2, 3, 4, 5], COLOURS], "DE": [[2, 0], ["blau", "rot"]], "XX": []}
    put(tmp_path / "set/names.json", json.dumps(names))
    task = {"kind": "classification", "class_names": "names.json"}
    definition = benchmark(task, "clip_benchmark", languages=["en", "de"])
    content = read_content(definition, tmp_path)
    assert content.names == {"en": COLOURS, "de": ["blau", "rot"]} and content.parts == {
        "en": list(range(6)),
        "de": [2, 0],
    }
    assert content.skips.counts == {"class names in languages that the benchmark lacks": 1}


def test_templates_of_the_data_need_a_place_for_the_class(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/zeroshot_classification_templates.txt", "a {c}\na photo\n")
    with pytest.raises(InputError, match=r"templates.txt: the template 'a photo' has no {c}"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)
