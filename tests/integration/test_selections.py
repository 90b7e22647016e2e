"""Selections in the real pipeline: `flame params check` says what to write, and DVC runs only what changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flame_core.graph.versions import VERSIONS
from flame_core.layout import Layout
from flame_core.params import changed_values, read_yaml
from flame_core.workspace import dvc, environment
from tests.curation.world import CODES, SELECT, coded_project, small_recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CHAIN = ["codes", "select", "link-student", "train@student"]
LOOSE = {"min_perplexity": 0.0, "max_dead_fraction": 1.0}


@pytest.fixture
def layout(tmp_path, byte_tokenizer, monkeypatch) -> Iterator[Layout]:
    for name, value in {**environment(), "FLAME_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    params, layout = coded_project(tmp_path, byte_tokenizer)
    layout.model("small").rename(tmp_path / "tower")
    content = {**changed_values(params), "recipes": ["student"], "train": {}}
    content["evaluate"] = {**content["evaluate"], "train_language": "en"}  # a stage depends on it
    content["codes"] = {**CODES, "tower": {"path": "tower"}, "gates": LOOSE}
    content["select"] = {**SELECT, "gates": {"max_empty_fraction": 1.0, "max_over_mean": 100.0}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    student = changed_values(small_recipe(gates={"max_loss_ratio": 100.0}, epochs=2, kinds=["raw"]))
    (tmp_path / "recipes/linked").mkdir(parents=True)
    linked = {**student, "selection": "data/selections/half.parquet"}
    (tmp_path / "recipes/linked/student.yaml").write_text(yaml.safe_dump(linked))
    stages = {"train": read_yaml(ROOT / "dvc.yaml")["stages"]["train"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    (tmp_path / VERSIONS).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / VERSIONS, tmp_path / VERSIONS)
    subprocess.run([*dvc(), "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    yield layout


def command(layout: Layout, *arguments: str, code: int = 0) -> str:
    variables = {**os.environ, "FLAME_LOG_LEVEL": "ERROR", "FLAME_TRACKING_URI": "off"}
    done = subprocess.run(
        arguments, cwd=layout.root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def test_dvc_codes_selects_and_trains_and_again_only_what_changed(layout):
    flame = str(Path(sys.executable).parent / "flame")
    for _ in CHAIN[:3]:
        said = command(layout, flame, "params", "check", code=2)
        with (layout.root / "dvc.yaml").open("a") as pipeline:
            pipeline.write(said.split("\n\n", 1)[1])

    def repro() -> list[str]:
        return re.findall(r"Running stage '(.*?)'", command(layout, *dvc(), "repro", "train@student"))

    assert repro() == CHAIN
    assert repro() == []
    params = read_yaml(layout.params)
    params["select"]["selections"]["tenth"] = {"share": 0.1}  # no recipe reads it
    layout.params.write_text(yaml.safe_dump(params))
    assert repro() == ["select"]
    params["select"]["selections"]["half"]["seed"] = 3
    layout.params.write_text(yaml.safe_dump(params))
    assert repro() == CHAIN[1:]
