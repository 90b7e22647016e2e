from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from flame_core.data.sources.file_names import FileNames, spellings

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
FILES = [
    "a.jpg",
    "img/a.jpg",
    "img/b c.JPG",
    f"img/{DECOMPOSED}",
    "img/x\\y.jpg",
    f"both/{COMPOSED}",
    f"both/{DECOMPOSED}",
]


@pytest.fixture
def names(tmp_path: Path) -> FileNames:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    return FileNames(tmp_path / "link", FILES)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "a.jpg"),
        ("./img//a.jpg", "img/a.jpg"),
        ("  img/a.jpg ", "img/a.jpg"),
        ("img\\a.jpg", "img/a.jpg"),
        ("img/../img/a.jpg", "img/a.jpg"),
        ("img\\x\\..\\a.jpg", "img/a.jpg"),
        (f"img/{COMPOSED}", f"img/{DECOMPOSED}"),
        (f"both/{COMPOSED}", f"both/{COMPOSED}"),
        (f"both/{DECOMPOSED}", f"both/{DECOMPOSED}"),
        ("img/x\\y.jpg", "img/x\\y.jpg"),
        ("img\\a.jpg#4", "img/a.jpg"),
    ],
)
def test_names_that_are_found(names: FileNames, name: str, file: str):
    assert names.find(name) == file


@pytest.mark.parametrize("folder", ["pictures", "link", "pictures/../link"])
def test_absolute_paths_within_the_folder(names: FileNames, tmp_path: Path, folder: str):
    assert names.find(f"{tmp_path}/{folder}/img/a.jpg") == "img/a.jpg"


@pytest.mark.parametrize(
    "name", ["img/A.jpg", "../a.jpg", "/a.jpg", "a", "a.png", "", ".", "/", "..", "img", "C:\\a.jpg"]
)
def test_no_other_file_is_taken(names: FileNames, name: str):
    assert names.find(name) is None


def test_a_number_is_one_of_a_caption_only_behind_a_picture():
    assert list(dict.fromkeys(spellings("dog.jpg#2", []))) == ["dog.jpg#2", "dog.jpg"]
    assert list(dict.fromkeys(spellings("dog #2", []))) == ["dog #2"]


def test_a_sibling_folder_with_the_same_beginning_is_outside(names: FileNames, tmp_path: Path):
    assert names.find(f"{tmp_path}/pictures-2/a.jpg") is None


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("img/b c.jpg", "img/b c.JPG"), ("img/b%20c.jpg", "img/b c.JPG"), ("/x/B C", "img/b c.JPG"), ("A.png", "a.jpg")],
)
def test_the_nearest_file_is_shown(names: FileNames, name: str, nearest: str):
    assert names.why_missing(name).endswith(f"; the nearest is {nearest!r}")


def test_else_what_files_are_called(names: FileNames, tmp_path: Path):
    assert names.why_missing("zebra.jpg").endswith("; its pictures are called like 'a.jpg'")
    assert FileNames(tmp_path, []).why_missing("x.jpg").endswith("no picture in the source's folder")
    assert len(names.why_missing("x" * 10_000)) < 400
