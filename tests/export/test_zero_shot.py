"""Classes of a benchmark as weights: its names and templates, read by the model's own text side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import flame_core
from flame_core.errors import InputError, ParamsError
from flame_core.export.zero_shot import zero_shot
from flame_core.layout import Layout
from flame_core.model.loaded import Model
from flame_core.suite.tasks.classification import class_vectors
from tests.data.drawings import png
from tests.serving import packages

NAMES = ["red bird", "boat"]


def benchmark(root: Path, **changes: Any) -> str:
    """A benchmark of two folders of pictures, and its file."""
    for name in ("a", "b"):
        (root / "datasets/own" / name).mkdir(parents=True, exist_ok=True)
        (root / "datasets/own" / name / "0.png").write_bytes(png(1))
    (root / "datasets/own/classnames.txt").write_text("\n".join(NAMES))
    content = {
        "title": "Own",
        "task": {"kind": "classification", "templates": {"en": ["a {c}", "one {c}, drawn"]}},
        "data": {"layout": "image_folder", "path": "own", "obtain": "draw it"},
        **changes,
    }
    (root / "own.yaml").write_text(yaml.safe_dump(content))
    return "own.yaml"


@pytest.fixture
def model(tmp_path: Path, byte_tokenizer: Any) -> Model:
    """One with a text tower of its own, so that any text is read at once."""
    made = packages.project(tmp_path, byte_tokenizer)
    return flame_core.load(packages.package(made, packages.OWN, tmp_path / "package", []), project=tmp_path)


def test_names_and_templates_are_those_of_the_benchmark(model: Model, tmp_path: Path, monkeypatch):
    name = benchmark(tmp_path)
    monkeypatch.chdir(tmp_path)  # so that the benchmark's name is also that of a file
    head = zero_shot(model, Layout.find(tmp_path), name, [])
    expected = class_vectors([[f"a {name}", f"one {name}, drawn"] for name in NAMES], model.encode_text)
    np.testing.assert_allclose(head.vectors, expected, atol=1e-6)
    assert head.names == NAMES and head.prompts == ["a red bird", "one red bird, drawn"]


def test_given_templates_replace_them(model: Model, tmp_path: Path):
    head = zero_shot(model, Layout.find(tmp_path), benchmark(tmp_path), ["{class}!"])
    np.testing.assert_allclose(head.vectors, model.encode_text([f"{name}!" for name in NAMES]), atol=1e-6)


def test_a_benchmark_without_classes_is_refused(model: Model, tmp_path: Path):
    with pytest.raises(ParamsError, match="coco: a benchmark of retrieval has no prompts of classes"):
        zero_shot(model, Layout.find(tmp_path), "coco", [])


def test_data_that_are_not_here_are_named(model: Model, tmp_path: Path):
    with pytest.raises(InputError, match=r"cifar10: .*datasets/.* does not exist; "):
        zero_shot(model, Layout.find(tmp_path), "cifar10", [])


def test_prompts_by_facet_are_no_single_weight(model: Model, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(type(model), "facets", 2)
    with pytest.raises(ParamsError, match=r"facet by facet.*--classes own.yaml@single"):
        zero_shot(model, Layout.find(tmp_path), benchmark(tmp_path, prompt="facets", template="short"), [])
