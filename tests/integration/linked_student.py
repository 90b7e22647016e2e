"""A project with one recipe, linked to what optional stages make; `flame params check` says which are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flame_core.graph.versions import VERSIONS
from flame_core.layout import Layout
from flame_core.params import read_yaml
from flame_core.workspace import dvc, environment

ROOT = Path(__file__).parents[2]
FLAME = str(Path(sys.executable).parent / "flame")


def write_project(
    root: Path, params: Mapping[str, Any], student: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write params, the recipe `student`, and a `dvc.yaml` that has only the stage train."""
    for name, value in {**environment(), "FLAME_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "recipes": ["student"], "train": {}}))
    (root / "recipes/linked").mkdir(parents=True)
    (root / "recipes/linked/student.yaml").write_text(yaml.safe_dump(dict(student)))
    stages = {"train": read_yaml(ROOT / "dvc.yaml")["stages"]["train"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    shutil.copy(ROOT / ".dvcignore", root)
    (root / VERSIONS).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / VERSIONS, root / VERSIONS)
    subprocess.run([*dvc(), "init", "--no-scm", "--quiet"], cwd=root, check=True)


def command(layout: Layout, *arguments: str, code: int = 0) -> str:
    """What a command says, which ends with this code."""
    variables = {**os.environ, "FLAME_LOG_LEVEL": "ERROR", "FLAME_TRACKING_URI": "off"}
    done = subprocess.run(
        arguments, cwd=layout.root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def write_missing_stages(layout: Layout) -> None:
    """Add to `dvc.yaml` what `flame params check` says is missing, after which nothing is."""
    said = command(layout, FLAME, "params", "check", code=2)
    with (layout.root / "dvc.yaml").open("a") as pipeline:
        pipeline.write(said.split("\n\n", 1)[1])
    command(layout, FLAME, "params", "check")
