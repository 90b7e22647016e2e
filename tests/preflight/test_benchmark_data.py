"""Benchmarks whose data are damaged or not there, told before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.outside.inputs import outside_stages
from flame_core.outside.noted import look, note
from flame_core.params import load_params, merge, read_yaml
from flame_core.preflight import benchmarks, check
from flame_core.preflight.benchmarks import require_benchmarks
from flame_core.suite.collection import read_benchmark
from tests.suite import datasets

KEY = "evaluate.benchmarks.names.0"
FEW = "names.json: 2 class names in 'en', but the labels are of 3 classes"


@pytest.fixture
def layout(layout: Layout) -> Layout:
    """The demo's params with a benchmark of its own: pictures of three classes, whose names are in a file."""
    tmp_path = layout.root
    datasets.pictures(tmp_path / "sets/things/test", ["a/1.png", "b/1.png", "c/1.png"])
    task = {"kind": "classification", "class_names": "names.json"}
    datasets.definition_file(tmp_path / "things.yaml", task, "image_folder", "things")
    chosen = {"names": ["things.yaml"], "data": "sets"}
    content = merge(read_yaml(tmp_path / "params.yaml"), {"evaluate": {"benchmarks": chosen}})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    name_classes(tmp_path, "a red thing", "a green thing", "a blue thing")
    return layout


def name_classes(root: Path, *names: str) -> None:
    (root / "sets/things/names.json").write_text(json.dumps({"en": names}))


def warnings(layout: Layout, *overrides: str) -> list[str]:
    checked = check(layout, overrides)
    assert checked.faults == []
    return [warning for warning in checked.warnings if "evaluate.benchmarks" in warning]


def test_data_that_fit_say_nothing(layout, caplog):
    assert warnings(layout) == []
    require_benchmarks(load_params(layout), layout)
    assert caplog.messages == []


def test_damaged_data_are_a_mistake_before_they_stop_embed(layout):
    name_classes(layout.root, "a red thing", "a green thing")
    (fault,) = check(layout).faults
    assert fault.startswith("params.yaml, line ") and f", {KEY}: things.yaml: " in fault and fault.endswith(FEW)
    with pytest.raises(ParamsError, match=rf"^{KEY}: things\.yaml: .*{FEW}$"):
        require_benchmarks(load_params(layout), layout)


def test_data_that_are_as_embed_read_them_are_not_read_again(layout, monkeypatch):
    params = load_params(layout)
    note(layout, "embed", look(outside_stages(params, layout)["embed"]))
    read = []
    monkeypatch.setattr(
        benchmarks, "read_benchmark", lambda each, data: read.append(each.name) or read_benchmark(each, data)
    )
    assert warnings(layout) == [] and read == []
    name_classes(layout.root, "a red thing", "a green thing")
    for overrides in ((), ("text.layer=5",)):  # in the project, and in a workspace
        (fault,) = check(layout, overrides).faults
        assert fault.endswith(FEW)
    assert read == ["things"] * 2


def test_data_that_are_not_there_are_named_with_what_is_needed(layout, caplog):
    shutil.rmtree(layout.root / "sets/things")
    said = f"{layout.root}/sets/things does not exist, so reports leave things.yaml out; it needs make it"
    (warning,) = warnings(layout)
    assert warning.startswith("params.yaml, line ") and warning.endswith(f", {KEY}: {said}")
    require_benchmarks(load_params(layout), layout)
    assert caplog.messages == [f"{KEY}: {said}"]
    (warning,) = warnings(layout, "evaluate.benchmarks={names: [], only_baselines: [imagenet1k]}")
    assert "evaluate.benchmarks.only_baselines.0: " in warning
    assert "/sets/wds_imagenet1k does not exist, so reports leave imagenet1k out; it needs the Hugging" in warning
