"""Files that file systems, notebooks and archives leave in folders of classes, and missing splits."""

from __future__ import annotations

import os

import pytest

from flame_core.errors import InputError
from flame_core.suite.content import NotAvailable
from flame_core.suite.layouts import read_content
from tests.suite.datasets import benchmark, picture, pictures, put


def test_hidden_files_and_folders_are_no_classes_and_no_pictures(tmp_path):
    pictures(tmp_path / "set/test/cat", ["1.jpg", "._1.jpg"])
    pictures(tmp_path / "set/test/dog", ["1.jpg", "deep/2.png", ".ipynb_checkpoints/2.png"])
    pictures(tmp_path / "set/test/__MACOSX", ["._1.jpg"])
    (tmp_path / "set/test/.ipynb_checkpoints").mkdir()
    put(tmp_path / "set/test/dog/Thumbs.db", b"x")
    pictures(tmp_path / "set/test", ["loose.jpg"])
    put(tmp_path / "set/test/desktop.ini", b"x")
    content = read_content(benchmark("classification", "image_folder"), tmp_path)
    assert content.names == {"en": ["cat", "dog"]}
    assert [each.name for each in content.pictures] == ["cat/1.jpg", "dog/1.jpg", "dog/deep/2.png"]
    assert content.skips.names == {
        "hidden files and folders": [".ipynb_checkpoints", "__MACOSX", "cat/._1.jpg", "dog/.ipynb_checkpoints"],
        "files that are no pictures": ["desktop.ini", "dog/Thumbs.db"],
        "pictures without a class": ["loose.jpg"],
    }


def test_every_kind_of_picture_that_is_decoded_is_found(tmp_path):
    for suffix in ("jpg", "JPEG", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif"):
        pictures(tmp_path / "set/test/cat", [f"1.{suffix}"])
    pictures(tmp_path / "set/test/dog", ["1.heic", "2.svg", "3.jpg"])
    content = read_content(benchmark("classification", "image_folder"), tmp_path)
    assert content.labels.tolist() == [0] * 12 + [1]
    assert content.skips.names == {"files that are no pictures": ["dog/1.heic", "dog/2.svg"]}


def test_linked_classes_are_read_and_links_within_a_class_are_counted(tmp_path):
    pictures(tmp_path / "elsewhere/dog", ["1.jpg"])
    pictures(tmp_path / "set/test/cat", ["1.jpg"])
    (tmp_path / "set/test/dog").symlink_to(tmp_path / "elsewhere/dog")
    (tmp_path / "set/test/cat/more").symlink_to(tmp_path / "elsewhere/dog")
    content = read_content(benchmark("classification", "image_folder"), tmp_path)
    assert [each.name for each in content.pictures] == ["cat/1.jpg", "dog/1.jpg"]
    assert content.skips.names == {"links to folders, which are not followed": ["cat/more"]}


def test_names_of_classes_mean_the_same_in_splits_with_different_folders(tmp_path):
    for place in ("train/apple", "train/bird", "train/cat", "test/apple", "test/cat", "test/dog"):
        pictures(tmp_path / "set" / place, ["0.jpg"])
    put(tmp_path / "set/classnames.txt", "Apple\nBird\nCat\nDog\n")
    for split, classes in (("train", ["Apple", "Bird", "Cat"]), ("test", ["Apple", "Cat", "Dog"])):
        content = read_content(benchmark("classification", "image_folder", data={"split": split}), tmp_path)
        named = content.names["en"]
        assert [named[label] for label in content.labels] == classes and len(named) == 4
    put(tmp_path / "set/classnames.txt", "Apple\nBird\nCat\n")
    probe = benchmark({"kind": "linear_probe"}, "image_folder")
    for split in ("train", "test"):
        with pytest.raises(InputError, match="3 class names in 'en', but the labels are of 4 classes"):
            read_content(probe, tmp_path, split)


def test_names_may_be_of_the_only_split_in_use(tmp_path):
    for place in ("train/a", "train/b", "train/c", "val/a", "val/c", "test/images"):
        pictures(tmp_path / "set" / place, ["0.jpg"])
    put(tmp_path / "set/classnames.txt", "A\nC\n")
    content = read_content(benchmark("classification", "image_folder", data={"split": "val"}), tmp_path)
    assert content.names == {"en": ["A", "C"]} and content.labels.tolist() == [0, 1]


def test_a_split_that_is_not_there_is_not_read_as_classes(tmp_path):
    for split in ("train", "Val"):
        for name in ("cat", "dog"):
            pictures(tmp_path / f"set/{split}/{name}", ["1.jpg"])
    with pytest.raises(NotAvailable, match=r"no split 'test'; it has Val, train: name one as data.split"):
        read_content(benchmark("classification", "image_folder"), tmp_path)
    with pytest.raises(NotAvailable, match="no split 'holdout'"):
        read_content(benchmark("classification", "image_folder", data={"split": "holdout"}), tmp_path)
    content = read_content(benchmark("classification", "image_folder", data={"split": "Val"}), tmp_path)
    assert content.names == {"en": ["cat", "dog"]}


def test_classes_without_splits_are_not_trained_and_tested_on_alike(tmp_path):
    pictures(tmp_path / "set", ["cat/1.jpg", "dog/1.jpg"])
    assert len(read_content(benchmark("linear_probe", "image_folder"), tmp_path).pictures) == 2
    with pytest.raises(NotAvailable, match="no split 'train'"):
        read_content(benchmark("linear_probe", "image_folder"), tmp_path, "train")


def test_names_that_are_no_text_are_shown_and_digested(tmp_path):
    odd = tmp_path / "set/test" / os.fsdecode(b"caf\xe9")
    pictures(tmp_path / "set/test/dog", ["1.jpg"])
    put(odd / "1.jpg", picture("red"))
    content = read_content(benchmark("classification", "image_folder"), tmp_path)
    assert [each.name for each in content.pictures] == ["caf\\udce9/1.jpg", "dog/1.jpg"]
    assert content.names == {"en": ["caf\\udce9", "dog"]}
    assert len(content.digest()) == 64
