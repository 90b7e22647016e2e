"""Clusters in the real pipeline: `flame params check` says what to write, and DVC runs only what changed."""

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
from flame_core.stages import embed
from flame_core.workspace import dvc, environment
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CHAIN = ["cluster", "link-student", "train@student"]


@pytest.fixture
def layout(tmp_path, byte_tokenizer, monkeypatch) -> Iterator[Layout]:
    for name, value in {**environment(), "FLAME_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    params, layout = captioned_project(tmp_path, byte_tokenizer, 40)
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"languages": []})})
    embed.run(params, layout)
    section = {"clusters": 4, "dims": 3, "gates": {"min_samples": 1}}
    content = {**changed_values(params), "recipes": ["student"], "train": {}, "cluster": section}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    terms = [{"name": "prototypes", "hidden": 12, "dim": 6}]
    student = {**changed_values(recipe(gates={"max_loss_ratio": 100.0}, epochs=2)), "terms": terms}
    student |= {"sidecars": {"clusters": "data/sidecars/clusters"}}
    (tmp_path / "recipes/linked").mkdir(parents=True)
    (tmp_path / "recipes/linked/student.yaml").write_text(yaml.safe_dump(student))
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


def test_dvc_clusters_links_and_trains_and_again_only_if_something_changed(layout):
    flame = str(Path(sys.executable).parent / "flame")
    for _ in CHAIN[:2]:
        said = command(layout, flame, "params", "check", code=2)
        with (layout.root / "dvc.yaml").open("a") as pipeline:
            pipeline.write(said.split("\n\n", 1)[1])
    command(layout, flame, "params", "check")

    def repro() -> list[str]:
        return re.findall(r"Running stage '(.*?)'", command(layout, *dvc(), "repro", "train@student"))

    assert repro() == CHAIN
    assert repro() == []
    params = read_yaml(layout.params)
    params["cluster"]["seed"] = 5
    layout.params.write_text(yaml.safe_dump(params))
    assert repro() == CHAIN
    shown = command(layout, flame, "plan", "--images", "40")
    assert "clusters: 4" in shown
