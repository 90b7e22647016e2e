"""What a disk or a wrong place refuses is said in a sentence that names the place."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_core.errors import ResourceError
from flame_core.files.disk_errors import clear_disk_errors, disk_error, make_folder, place_error


@pytest.mark.parametrize("below", ["lost", "lost/embed", "lost/embed/unit/file"])
def test_a_link_to_a_disk_that_is_not_mounted_is_named(tmp_path: Path, below: str):
    (tmp_path / "lost").symlink_to("/not/mounted")
    with (
        pytest.raises(ResourceError, match=rf"^{tmp_path}/lost is a link to /not/mounted, which is not there"),
        clear_disk_errors(tmp_path),
    ):
        (tmp_path / below).mkdir()


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    for make in (tmp_path / "file", tmp_path / "file/more", tmp_path / "file/more/still"):
        with (
            pytest.raises(ResourceError, match=rf"^{tmp_path}/file is a file, where a folder is needed"),
            clear_disk_errors(tmp_path),
        ):
            make.mkdir()


def test_a_file_that_is_only_missing_keeps_its_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as found, clear_disk_errors(tmp_path):
        (tmp_path / "missing").read_bytes()
    assert place_error(found.value) is None


def test_a_link_that_is_there_already_asks_nobody_to_move_its_source_away(tmp_path: Path):
    (tmp_path / "source").touch()
    (tmp_path / "place").touch()
    for link in (os.link, os.symlink):
        with pytest.raises(FileExistsError) as found, clear_disk_errors(tmp_path):
            link(tmp_path / "source", tmp_path / "place")
        assert place_error(found.value) is None


def test_who_keeps_something_in_a_folder_is_named_beside_a_file_in_its_place(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to("/not/mounted")
    for name, said in (
        ("file", "file is a file, where MLflow has a folder"),
        ("lost", "lost is a link to /not/mounted"),
    ):
        with pytest.raises(ResourceError, match=f"^{tmp_path}/{said}"):
            make_folder(tmp_path / name / "mlflow", "MLflow")


def test_an_array_on_a_full_disk_says_that_it_is_full(tmp_path: Path):
    """numpy's error has no number of an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with (
            pytest.raises(ResourceError, match=rf"^{tmp_path}/out: No space left on device. Free some room"),
            clear_disk_errors(tmp_path / "out"),
        ):
            np.save(tmp_path / "vectors.npy", np.zeros(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_name_that_the_disk_does_not_take_is_told(tmp_path: Path):
    wanted = tmp_path / ("n" * 300)
    with pytest.raises(OSError) as caught:
        wanted.mkdir()
    for place in (None, tmp_path):  # the folder is not to blame
        assert str(disk_error(caught.value, place)).startswith(f"{wanted}: File name too long")


def test_an_error_without_a_name_is_told_with_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert str(disk_error(OSError(errno.ENOSPC, "full"))).startswith(f"{tmp_path}: full. Free some room")


def test_a_folder_that_this_user_may_not_enter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is in it cannot even be asked whether it is a file."""
    closed = tmp_path / "closed"
    closed.mkdir()
    stat, access = os.stat, os.access

    def refused(path: str | os.PathLike[str], *arguments: Any, **options: Any) -> os.stat_result:
        if closed in Path(os.fsdecode(path)).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *arguments, **options)

    def may(path: str | os.PathLike[str], mode: int) -> bool:
        return closed not in Path(path).parents and (Path(path) != closed or mode == os.F_OK) and access(path, mode)

    monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setattr(os, "access", may)
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed / "shards" / "index.parquet"))
    assert str(disk_error(error)).startswith(f"{closed}: Permission denied. This user may not read or write there")
