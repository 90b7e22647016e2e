from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.settings import settings


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAME_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "project").mkdir()
    return Layout.find(tmp_path / "project")
