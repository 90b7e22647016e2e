"""A user without a name, as in a container that runs with a number."""

from __future__ import annotations

import getpass
import os
import pwd
from pathlib import Path

import pytest

from flame_core.program.user_name import name_user

VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # which `getpass` looks at


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setenv("LOGNAME", "")  # so that it is restored
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_nameless_user_is_called_by_its_number_and_can_use_dvc(nameless: None, tmp_path: Path):
    from dvc.repo import Repo

    with pytest.raises((KeyError, OSError)):  # before Python 3.13, and since
        Repo.init(str(tmp_path / "before"), no_scm=True)
    name_user()
    assert getpass.getuser() == str(os.getuid())
    (tmp_path / "project").mkdir()
    with Repo.init(str(tmp_path / "project"), no_scm=True) as repo:
        assert repo.status() == {}


def test_a_name_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOGNAME", "somebody")
    name_user()
    assert os.environ["LOGNAME"] == getpass.getuser() == "somebody"
