"""The socket between Dagster's servers, wherever a project lies."""

from __future__ import annotations

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from flame_core.errors import ResourceError
from orchestration.ui.servers import code_socket, remove_socket


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    """A folder of temporary files whose path is short, unlike that of `tmp_path`."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path.exists()


def test_it_lies_in_the_project(short):
    assert code_socket(short) == short / "code.sock"
    assert listens(code_socket(short))
    remove_socket(short)
    assert short.is_dir() and not list(short.iterdir())


@pytest.mark.parametrize("name", ["a" * 120, "\N{CYRILLIC SMALL LETTER A}" * 50])  # two bytes a letter
def test_where_a_path_is_too_long_it_lies_in_a_folder_of_the_users_own(short, name):
    home = short / name
    home.mkdir()
    own = code_socket(home)
    assert own.parent.parent == short and own == code_socket(home) != code_socket(short / name[:-1])
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700
    assert listens(own)
    remove_socket(home)
    assert not own.parent.exists()


def test_a_folder_that_others_may_enter_is_refused(short):
    home = short / ("a" * 120)
    code_socket(home).parent.chmod(0o755)
    with pytest.raises(ResourceError, match="of yours alone"):
        code_socket(home)


def test_a_link_of_someone_else_is_refused(short):
    home, other = short / ("a" * 120), short / "other"
    other.mkdir(mode=0o700)
    place = code_socket(home).parent
    place.rmdir()
    place.symlink_to(other)
    with pytest.raises(ResourceError, match="of yours alone"):
        code_socket(home)
