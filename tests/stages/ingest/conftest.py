from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.layout import Layout


@pytest.fixture(autouse=True)
def in_this_process(one_worker: None) -> None:
    """No ingest of these tests starts a process."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "project").mkdir()
    return Layout.find(tmp_path / "project")
