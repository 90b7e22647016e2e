from __future__ import annotations

import os
from pathlib import Path

import pytest

from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.walk import Walk


def _walk(folder: Path, follow_out: bool = False) -> tuple[list[str], dict[str, str], dict[str, list[str]]]:
    """Files, {problem: reason}, {reason: names} of what is not used."""
    problems, unused = Problems(), Unused()
    walk = Walk(folder, follow_out, problems, unused)
    assert [problem.file for problem in problems if problem.reason != "unreadable_folder"] == walk.failed
    left: dict[str, list[str]] = {}
    for group in unused.rows():
        left.setdefault(group.reason, []).extend(group.examples)
    return walk.files, {problem.file: problem.reason for problem in problems}, left


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of links: into itself, to another folder, to files there, and in circles."""
    other, folder = tmp_path / "other", tmp_path / "set"
    for place in (other / "a", other / "b", folder / "own" / "deep"):
        place.mkdir(parents=True)
        (place / "1.jpg").write_bytes(b"1")
    (folder / "cycle").symlink_to(folder)
    (folder / "own" / "up").symlink_to("..")
    (folder / "again").symlink_to("own/deep")
    (folder / "same.jpg").symlink_to("own/deep/1.jpg")
    (folder / "out").symlink_to(other / "a")
    (folder / "out.jpg").symlink_to(other / "b" / "1.jpg")
    return folder


def test_links_within_the_folder_are_followed_once(mixed: Path):
    files, problems, left = _walk(mixed)
    assert files == ["own/deep/1.jpg", "same.jpg"]
    assert problems == {"out": "link_outside", "out.jpg": "link_outside"}
    assert left == {"linked_folder": ["again", "cycle", "own/up"]}


def test_links_out_of_the_folder_where_they_are_trusted(mixed: Path):
    files, problems, left = _walk(mixed, follow_out=True)
    assert files == ["out/1.jpg", "out.jpg", "own/deep/1.jpg", "same.jpg"]
    assert (problems, left) == ({}, {"linked_folder": ["again", "cycle", "own/up"]})


def test_a_link_to_a_hidden_folder_is_read(tmp_path: Path):
    (tmp_path / ".store").mkdir()
    (tmp_path / ".store" / "1.jpg").write_bytes(b"1")
    (tmp_path / "pictures").symlink_to(".store")
    assert _walk(tmp_path) == (["pictures/1.jpg"], {}, {"hidden": [".store"]})


def test_hidden_and_special_files(tmp_path: Path):
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._1.jpg").write_bytes(b"x")
    for name in (".DS_Store", "._1.jpg", "1.jpg"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    files, problems, left = _walk(tmp_path, follow_out=True)
    assert files == ["1.jpg"]
    assert problems == {
        "pipe.jpg": "not_a_file",
        "zero.txt": "not_a_file",
        "loop.jpg": "unreadable_file",
        "gone.jpg": "unreadable_file",
    }
    assert {name for names in left.values() for name in names} == {"__MACOSX", ".DS_Store", "._1.jpg"}


def test_the_folder_itself_may_be_a_link(mixed: Path):
    (mixed.parent / "link").symlink_to(mixed)
    assert _walk(mixed.parent / "link") == _walk(mixed)


def test_very_deep_folders_end(tmp_path: Path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python recurses and than a path may be long
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (tmp_path / "1.jpg").write_bytes(b"1")
    files, problems, _ = _walk(tmp_path)
    assert files == ["1.jpg"]
    assert list(problems.values()) == ["unreadable_folder"]
    os.system(f"rm -rf '{tmp_path}/deep'")  # shutil recurses


@pytest.mark.parametrize("linked", [False, True])
def test_a_project_in_the_folder_is_left_out(tmp_path: Path, linked: bool):
    folder, project = tmp_path / "set", tmp_path / ("elsewhere" if linked else "set/sub/project")
    for place in (folder / "sub", project / "data/models"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "1.json").write_text("{}")
    for mark in ("dvc.yaml", "params.yaml"):
        (project / mark).write_text("")
    if linked:
        (folder / "sub/project").symlink_to(project)
    assert _walk(folder, follow_out=linked) == (["sub/1.json"], {}, {"project": ["sub/project"]})
    assert "data/models/1.json" in _walk(project)[0]  # a source in a project is read
