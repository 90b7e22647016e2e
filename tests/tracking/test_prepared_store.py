"""The store of `mlflow/server.sh` is made or upgraded as a whole, or is what it was."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flame_core.errors import ResourceError
from flame_core.tracking.address import sqlite_address
from flame_core.tracking.prepared_store import prepare
from flame_core.tracking.store import before_upgrade, open_client
from tests.tracking.conftest import empty_store

__all__ = ["empty_store"]


@pytest.fixture
def database(empty_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_store, tmp_path / "mlflow.db"))


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_new_store_is_made_whole(tmp_path: Path):
    assert prepare(tmp_path / "new") == sqlite_address(tmp_path / "new/mlflow.db")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]
    before = (tmp_path / "new/mlflow.db").stat().st_mtime_ns
    prepare(tmp_path / "new")
    assert (tmp_path / "new/mlflow.db").stat().st_mtime_ns == before


@pytest.mark.parametrize("by_server", [True, False])
def test_an_upgrade_that_was_cut_is_taken_back(database: Path, by_server: bool):
    shutil.copy(database, before_upgrade(database))
    change(database, "DROP TABLE experiments")
    if by_server:
        prepare(database.parent)
    client = open_client(sqlite_address(database))
    assert len(client.search_experiments()) == 1 and not before_upgrade(database).exists()


def test_the_store_of_a_newer_version_stays_as_it_was(database: Path):
    change(database, "UPDATE alembic_version SET version_num = 'newer'")
    change(database, "UPDATE experiments SET name = 'mine'")
    with pytest.raises(ResourceError, match="its schema belongs to another MLflow version"):
        prepare(database.parent)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM experiments").fetchall() == [("mine",)]
    assert not before_upgrade(database).exists()
