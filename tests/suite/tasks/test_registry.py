"""A task is a module and a line in the registry: a task that the suite does not have works everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from flame_core.suite.tasks import TASKS
from tests.suite.datasets import definition_file, lines, pictures, put, sugarcrepe

ROOT = Path(__file__).parents[3]


def run(root, *definitions: str) -> dict:
    command = [sys.executable, "-m", "tests.suite.tasks.naming_suite", root, *definitions]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "found.json").read_text())


def test_a_new_task_is_read_embedded_measured_recorded_and_shown(tmp_path):
    """All three names are right in English; in German two are swapped."""
    names = {"en": ["red", "green", "blue"], "de": ["rot", "green", "blue"]}
    rows = [
        {"image": f"{index}.png", "captions": [names[code][place]], "lang": code}
        for code, order in (("en", [0, 1, 2]), ("de", [0, 2, 1]))
        for index, place in enumerate(order)
    ]
    put(tmp_path / "datasets/mine/captions.jsonl", lines(rows))
    pictures(tmp_path / "datasets/mine/images", ["0.png", "1.png", "2.png"])  # red, green, blue
    definition_file(tmp_path / "mine.yaml", {"kind": "naming"}, "captions_jsonl", "mine", languages=["en", "de", "fr"])
    found = run(tmp_path, "mine.yaml")
    assert found["embedded"] == [f"is it {colour}" for colour in ("red", "green", "blue", "rot")]
    assert found["missing"] == ["fr"]
    values = {name: value for name, value in found["metrics"].items() if name.endswith("/named")}
    assert values == {
        "benchmarks/mine/en/named": 1,
        "benchmarks/mine/de/named": pytest.approx(1 / 3, abs=1e-6),
        "benchmarks/mine/mean/named": pytest.approx(2 / 3, abs=1e-6),
        **{f"benchmarks/mine/{code}/chance/named": pytest.approx(1 / 3, abs=1e-6) for code in ("en", "de", "mean")},
    }
    assert found["headline"] == "benchmarks/mine/mean/named"
    assert found["rows"] == [["mine", "own name first", pytest.approx(2 / 3, abs=1e-6), pytest.approx(1 / 3, abs=1e-6)]]
    assert found["charts"] == ["mine: own name first", "mine: own name first by language"]
    assert found["task"] == "naming"


def test_errors_know_a_new_task_s_keys_and_the_data_it_wants(tmp_path):
    definition_file(tmp_path / "typo.yaml", {"kind": "naming", "qestion": "x"}, "captions_jsonl", "mine")
    assert "did you mean 'question'? accepted here: kind, question" in run(tmp_path, "typo.yaml")["error"]
    definition_file(tmp_path / "kind.yaml", {"kind": "name"}, "captions_jsonl", "mine")
    assert "'segmentation', 'naming'" in run(tmp_path, "kind.yaml")["error"]
    sugarcrepe(tmp_path / "datasets/mine")
    definition_file(tmp_path / "other.yaml", {"kind": "naming"}, "sugarcrepe", "mine")
    error = run(tmp_path, "other.yaml")["error"]
    assert error == "benchmark other: task naming needs pictures with captions, not layout sugarcrepe"


@pytest.mark.parametrize("kind", TASKS)
def test_the_registry_has_each_task_by_the_kind_of_its_params(kind):
    assert get_args(TASKS[kind].params.model_fields["kind"].annotation) == (kind,)
