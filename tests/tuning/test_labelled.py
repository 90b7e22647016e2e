"""Labelled pictures of benchmarks: each has the name of its own class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import TuneParams
from flame_core.tuning.labelled import Within, read_within
from tests.measuring import world
from tests.suite.datasets import COLOURS, definition_file, picture, put

NUMBERS = {"de": [[3, 1, 0], ["Drei", "Eins", "Null"]], "en": ["zero", "one", "two", "three"]}


def of_benchmark(root: Path, names: dict[str, Any], languages: list[str]) -> Within:
    """What tune reads of a benchmark of four classes with these names, of which each split has six pictures."""
    for split in ("train", "test"):
        for number in range(4):
            for each in range(6):
                path = root / "datasets/set" / split / f"c{number}" / f"{each}.jpg"
                put(path, picture(COLOURS[number], size=(40 + each, 32)))
    put(root / "datasets/set/names.json", names)
    task = {"kind": "classification", "class_names": "names.json"}
    definition_file(root / "mine.yaml", task, "image_folder", "set", languages=languages)
    given: dict[str, Any] = {"recipes": ["plain"], "benchmark": "mine.yaml", "train_split": "train", "min_pictures": 3}
    return read_within(world.params(root), TuneParams(**given), Layout(root, root))


@pytest.mark.parametrize(
    ("languages", "classes"),
    [
        (["en"], {"zero": "c0", "one": "c1", "two": "c2", "three": "c3"}),
        (["de"], {"Null": "c0", "Eins": "c1", "Drei": "c3"}),
        (["de", "en"], {"Null": "c0", "Eins": "c1", "Drei": "c3"}),
    ],
)
def test_a_language_names_some_classes(tmp_path: Path, languages: list[str], classes: dict[str, str]):
    found = of_benchmark(tmp_path, NUMBERS, languages)
    assert found.classes == sorted(classes)
    for part in (found.train, found.validation, found.test):
        named = [found.classes[label] for label in part.labels]
        assert [classes[name] for name in named] == [each.name.split("/")[0] for each in part.pictures]
    assert len(found.test) == 6 * len(classes)


def test_heads_are_not_trained_on_what_tests_them(tmp_path: Path):
    of_benchmark(tmp_path, NUMBERS, ["en"])
    given: dict[str, Any] = {"recipes": ["plain"], "benchmark": "mine.yaml", "train_split": "test"}
    with pytest.raises(ParamsError, match=r"mine.yaml is tested on its split 'test': train on another one"):
        read_within(world.params(tmp_path), TuneParams(**given), Layout(tmp_path, tmp_path))
    with pytest.raises(ValidationError, match=r"beyond: mine\.yaml is `benchmark`"):
        TuneParams(**given, beyond=["mine.yaml"])


def test_classes_of_one_name_are_one_class_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = of_benchmark(tmp_path, {"en": ["sunglasses", "sun", "sunglasses", "moon"]}, ["en"])
    assert found.classes == ["moon", "sun", "sunglasses"]
    assert (found.test.labels == 2).sum() == 12
    assert "as one class: sunglasses" in caplog.text
