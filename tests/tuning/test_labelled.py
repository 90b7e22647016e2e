"""Labelled pictures of benchmarks: each has the name of its own class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.layout import Layout
from flame_core.params import TuneParams
from flame_core.tuning.labelled import read_within
from tests.measuring import world
from tests.suite.datasets import COLOURS, definition_file, picture, put

NUMBERS = {"de": [[3, 1, 0], ["Drei", "Eins", "Null"]], "en": ["zero", "one", "two", "three"]}


@pytest.mark.parametrize(
    ("languages", "classes"),
    [
        (["en"], {"zero": "c0", "one": "c1", "two": "c2", "three": "c3"}),
        (["de"], {"Null": "c0", "Eins": "c1", "Drei": "c3"}),
        (["de", "en"], {"Null": "c0", "Eins": "c1", "Drei": "c3"}),
    ],
)
def test_a_language_names_some_classes(tmp_path: Path, languages: list[str], classes: dict[str, str]):
    for split in ("train", "test"):
        for number in range(4):
            for each in range(6):
                path = tmp_path / "datasets/set" / split / f"c{number}" / f"{each}.jpg"
                put(path, picture(COLOURS[number], size=(40 + each, 32)))
    put(tmp_path / "datasets/set/names.json", NUMBERS)
    task = {"kind": "classification", "class_names": "names.json"}
    definition_file(tmp_path / "mine.yaml", task, "image_folder", "set", languages=languages)
    params = world.params(tmp_path)
    given: dict[str, Any] = {"recipes": ["plain"], "benchmark": "mine.yaml", "train_split": "train", "min_pictures": 3}
    found = read_within(params, TuneParams(**given), Layout(tmp_path, tmp_path))
    assert found.classes == sorted(classes)
    for part in (found.train, found.validation, found.test):
        named = [found.classes[label] for label in part.labels]
        assert [classes[name] for name in named] == [each.name.split("/")[0] for each in part.pictures]
    assert len(found.test) == 6 * len(classes)
