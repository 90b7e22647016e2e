"""MLflow's stores: how the embedded one is made, and errors in one sentence."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from flame_core.errors import ResourceError
from flame_core.tracking.address import sqlite_address
from flame_core.tracking.store import open_client, trouble

MANY = """The following failures occurred while downloading one or more artifacts from file:///store:
##### File artifacts/package #####
[Errno 2] No such file or directory: '/store/package'
more
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no such table\nin a long statement", "no such table"),
        ("\n", "MlflowException"),
        (MANY, f"{MANY.splitlines()[0]} [Errno 2] No such file or directory: '/store/package'"),
    ],
)
def test_the_sentence_says_what_was_announced(said: str, told: str) -> None:
    assert trouble("http://host", MlflowException(said)) == f"MLflow at http://host failed: {told}"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (401, r" asks for a login, or does not accept this one: .*MLFLOW_TRACKING_USERNAME"),
        (403, r": this user may not do that \(/api/2\.0/mlflow/runs/update\)\. An admin can allow it"),
    ],
)
def test_a_refused_login_says_what_to_do(code: int, told: str) -> None:
    said = f"API request to endpoint /api/2.0/mlflow/runs/update failed with error code {code} != 200. Body: x"
    assert re.match(f"MLflow at http://host{told}", trouble("http://host", MlflowException(said)))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "copy", None, "/store/package"),
            "/store/package: No space left",
        ),
        (MlflowException("(sqlite3.OperationalError) database or disk is full\n[SQL: UPDATE runs"), "its disk is full"),
    ],
)
def test_a_full_disk_says_what_to_do(error: Exception, told: str) -> None:
    said = trouble("sqlite:////project/mlflow.db", error)
    assert said.startswith(f"MLflow at sqlite:////project/mlflow.db: {told}")
    assert said.endswith("Free some room and run the same command again: finished work is kept")


def test_a_store_whose_making_was_interrupted_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: MLflow refuses a database that has some of its tables, and would do so for ever."""
    import sqlalchemy
    from mlflow.store.db import utils
    from sqlalchemy.exc import OperationalError

    def cut(engine: sqlalchemy.Engine) -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE secrets (id INTEGER)"))
        raise OperationalError("CREATE TABLE", {}, Exception("database or disk is full"))

    database = tmp_path / ".flame" / "mlflow" / "mlflow.db"
    with monkeypatch.context() as full:
        full.setattr(utils, "_initialize_tables", cut)
        with pytest.raises(ResourceError, match=r"its disk is full\. Free some room"):
            open_client(sqlite_address(database))
    client = open_client(sqlite_address(database))
    assert client.create_experiment("x") and client.get_experiment_by_name("x")
    assert [path.name for path in database.parent.iterdir() if path.name.startswith(".tmp")] == []
