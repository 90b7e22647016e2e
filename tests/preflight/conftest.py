from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flame_core.layout import Layout

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    """The demo's params; nothing has run."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return Layout.find(tmp_path)
