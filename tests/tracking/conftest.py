"""A project's layout with tracking on: journals and MLflow's embedded store in a folder of the test."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.address import sqlite_address
from flame_core.tracking.store import local_store, open_client, tracking_address


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them, which takes MLflow seconds to make."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(sqlite_address(database))
    return database


@pytest.fixture
def tracked(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An empty project whose tracking goes to its own embedded store."""
    store = local_store(Layout.find(tmp_path))
    store.mkdir(parents=True)
    shutil.copy(empty_store, store)
    monkeypatch.delenv("FLAME_TRACKING_URI")
    settings.cache_clear()
    return Layout.find(tmp_path)


@pytest.fixture
def address(tracked: Layout) -> str:
    found = tracking_address(tracked)
    assert found
    return found


def start(key: str = "abc", **tags: str) -> dict:
    return {"kind": "start", "time": 1_000, "name": f"plain-{key}", "tags": {"flame.recipe": "plain", **tags}}


def steps(count: int, seed: int = 0) -> list[dict]:
    """Metrics events of a made-up training."""
    draw = random.Random(seed)
    return [
        {
            "kind": "metrics",
            "time": 2_000 + step,
            "step": step,
            "values": {"train/loss": draw.random(), "train/epoch": 0},
        }
        for step in range(count)
    ]


def end(status: str = "FINISHED") -> dict:
    return {"kind": "end", "status": status, "time": 9_000}
