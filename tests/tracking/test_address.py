"""Addresses of stores: any path is read back as itself, and no login is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.address import (
    lacks_driver,
    login,
    sqlite_address,
    sqlite_path,
    without_login,
    without_secrets,
)
from flame_core.tracking.store import tracking_address


@pytest.mark.parametrize("name", ["plain", "a b", "what?", "50%", "50%20", "#1", "ä&=+;", "a@b:c"])
def test_a_path_is_what_sqlalchemy_and_we_read_back(name):
    path = Path("/home") / name / "mlflow.db"
    assert sqlite_path(sqlite_address(path)) == path
    assert make_url(sqlite_address(path)).database == str(path)


def test_other_addresses_have_no_path():
    assert sqlite_path("http://host:5000") is None and sqlite_path("postgresql://host/db") is None


@pytest.mark.parametrize(
    ("address", "shown", "found"),
    [
        ("http://ada:s3cret@host:5000", "http://host:5000", ("ada", "s3cret")),
        ("https://ada:p%40ss%2Fword@host/mlflow/", "https://host/mlflow/", ("ada", "p@ss/word")),
        ("http://ada:p@ss@host:5000", "http://host:5000", ("ada", "p@ss")),
        ("http://host:5000", "http://host:5000", None),
        ("postgresql://ada:s3cret@db/mlflow?sslpassword=s3cret", "postgresql://db/mlflow", ("ada", "s3cret")),
        ("sqlite:////a@b:c/mlflow.db", "sqlite:////a@b:c/mlflow.db", None),
        ("databricks", "databricks", None),
    ],
)
def test_an_address_is_shown_without_its_login(address, shown, found):
    assert (without_login(address), login(address)) == (shown, found)


@pytest.mark.parametrize("address", ["http://ada:s3/cret@host:5000", "http://ada:12/cret@host"])
def test_a_password_that_cannot_be_told_apart_is_refused_and_not_shown(tracked, monkeypatch, address):
    monkeypatch.setenv("FLAME_TRACKING_URI", address)
    settings.cache_clear()
    with pytest.raises(ParamsError, match="%2F") as refused:
        tracking_address(tracked)
    assert "cret" not in str(refused.value)


def test_texts_of_libraries_lose_passwords():
    address = "postgresql://ada:p%40ss@db/mlflow"
    said = "cannot reach postgresql://ada:p%40ss@db/mlflow (p@ss), nor http://x:y@host/api"
    assert without_secrets(said, address) == "cannot reach postgresql://db/mlflow (***), nor http://host/api"
    assert without_secrets("as it was", None) == "as it was"


@pytest.mark.parametrize("address", ["postgresql://ada:s3cret@db/mlflow", "postgres://db/mlflow"])
def test_postgres_needs_its_driver(address, monkeypatch, tmp_path):
    monkeypatch.setenv("FLAME_TRACKING_URI", address)
    settings.cache_clear()
    with pytest.raises(ParamsError, match=r"FLAME_TRACKING_URI names no driver .* postgresql\+psycopg2://") as refusal:
        tracking_address(Layout.find(tmp_path))
    assert "s3cret" not in str(refusal.value)
    assert not lacks_driver("postgresql+psycopg2://db/mlflow") and not lacks_driver("http://postgresql")
