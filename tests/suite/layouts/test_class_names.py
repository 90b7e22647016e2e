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
        ({"en": {"names": COLOURS, "templates": ["a {}"]}}, r"'a {}' has no {c} for the class; write {c}"),
    ],
)
def test_wrong_files_of_names_are_refused(tmp_path, names, message):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/names.json", json.dumps(names))
    task = {"kind": "classification", "class_names": "names.json"}
    with pytest.raises(InputError, match=message):
        read_content(benchmark(task, "clip_benchmark"), tmp_path)


def test_templates_of_the_data_need_a_place_for_the_class(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/zeroshot_classification_templates.txt", "a {c}\na photo of {}\n")
    with pytest.raises(InputError, match=r"templates.txt: the template 'a photo of {}' has no {c}"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)
