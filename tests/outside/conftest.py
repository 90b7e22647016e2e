"""A project that reads a folder beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from flame_core.layout import Layout
from flame_core.params import merge, read_yaml
from tests.outside.projects import (
    add,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project whose one source is the folder `pictures` beside it."""
    add(tmp_path / "pictures", *range(10))
    root = tmp_path / "project"
    root.mkdir()
    content = merge(read_yaml(ROOT / "params.yaml"), {"recipes": ["flame"], "ingest": {"shard_samples": 8}})
    content["sources"] = {"mine": {"kind": "folder", "path": "../pictures"}}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(ROOT / "recipes", root / "recipes")
    return Layout.find(root)
