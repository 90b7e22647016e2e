"""Files that people wrote: names that lead out of the folder, other encodings, wrong JSON, pipes."""

from __future__ import annotations

import os

import pytest

from flame_core.errors import InputError
from flame_core.suite.content import NotAvailable
from flame_core.suite.layouts import read_content
from tests.suite import datasets
from tests.suite.datasets import COLOURS, benchmark, captions_of, lines, pictures, put


def test_a_pipe_in_a_files_place_does_not_stop_it(tmp_path):
    pictures(tmp_path / "set/images", ["a.jpg"])
    os.mkfifo(tmp_path / "set/images/b.jpg")
    put(tmp_path / "set/captions.jsonl", lines([{"image": f"{name}.jpg", "captions": name} for name in "ab"]))
    content = read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)
    assert content.skips.names == {
        "captions whose picture is missing": ["b.jpg"], "files that are no pictures": ["images/b.jpg"],
    }  # fmt: skip
    (tmp_path / "set/captions.jsonl").unlink()
    os.mkfifo(tmp_path / "set/captions.jsonl")
    with pytest.raises(InputError, match=r"captions.jsonl: must be a file"):
        read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)


TOLD = r"must be a path below|holds no picture|is longer than the name of a file"
LONG = "a caption in a name's place " * 12


@pytest.mark.parametrize("name", ["/etc/hostname", "../out.jpg", "a/../../out.jpg", "", "a\0b", LONG, "ä/" * 2000])
def test_names_that_lead_out_or_are_too_long_are_refused(tmp_path, name):
    pictures(tmp_path / "set", ["images/a.jpg", "photos/a.jpg", "val2017/a.jpg", "out.jpg"])
    put(tmp_path / "set/captions.jsonl", lines([{"image": name, "captions": "x"}]))
    put(tmp_path / "set/dataset.json", {"images": [{"filename": name, "split": "test", "sentences": [{"raw": "x"}]}]})
    put(
        tmp_path / "set/docci_descriptions.jsonlines", lines([{"split": "test", "image_file": name, "description": ""}])
    )
    put(tmp_path / "set/file.json", [{"image": name, "conversations": [{"value": "?"}, {"value": "x"}]}])
    put(tmp_path / "set/splits.json", {"test": ["a.json"]})
    put(tmp_path / "set/annotations/a.json", {"image": name, "short_caption": "", "extra_caption": ""})
    put(tmp_path / "set/add_obj.json", {"0": {"filename": name, "caption": "x", "negative_caption": "y"}})
    texts = {"image_1": "a.png", "caption_0": "x", "caption_1": "y"}
    put(tmp_path / "set/examples.jsonl", lines([{"image_0": f"{name}.png" if name else "", **texts}]))
    for task, layout, data in (
        ("retrieval", "captions_jsonl", {}),
        ("retrieval", "karpathy", {}),
        ("retrieval", "docci", {}),
        ("retrieval", "sharegpt4v", {"annotations": "file.json"}),
        ("retrieval", "dci", {}),
        ("choice", "sugarcrepe", {}),
        ("choice", "winoground", {}),
    ):
        with pytest.raises((InputError, NotAvailable), match=TOLD) as error:
            read_content(benchmark(task, layout, data=data), tmp_path)
        assert error.type is InputError or (layout == "winoground" and not name)  # `.png`, which is not there


def test_keys_of_crossmodal3600_that_lead_out_are_refused(tmp_path):
    datasets.crossmodal(tmp_path / "set")
    put(tmp_path / "set/captions.jsonl", lines([{"image/key": "../../x", "en": {"caption": ["y"]}}]))
    with pytest.raises(InputError, match="must be a path below"):
        read_content(benchmark("retrieval", "crossmodal3600"), tmp_path)


def test_names_may_begin_with_the_folder_of_the_pictures(tmp_path):
    pictures(tmp_path / "set/images", ["a.jpg", "images/b.jpg"])
    rows = [{"image": "images/a.jpg", "captions": "one"}, {"image": "images/b.jpg", "captions": "two"}]
    put(tmp_path / "set/captions.jsonl", lines(rows))
    content = read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)
    assert [each.path.relative_to(tmp_path).as_posix() for each in content.pictures] == [
        "set/images/a.jpg", "set/images/images/b.jpg",
    ]  # fmt: skip
    assert content.skips.counts == {}


def test_byte_order_marks_are_no_part_of_a_name(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    for encoding in ("utf-8-sig", "utf-16"):
        put(tmp_path / "set/classnames.txt", "\n".join(COLOURS).encode(encoding))
        assert read_content(benchmark("classification", "clip_benchmark"), tmp_path).names == {"en": COLOURS}
    pictures(tmp_path / "set/images", ["a.jpg"])
    put(tmp_path / "set/captions.jsonl", lines([{"image": "a.jpg", "captions": "one"}]).encode("utf-8-sig"))
    assert captions_of(read_content(benchmark("retrieval", "captions_jsonl"), tmp_path)) == {"a.jpg": ["one"]}


def test_other_encodings_are_refused_with_file_and_line(tmp_path):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/classnames.txt", "rot\ncafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classnames.txt: line 2 is not utf-8: byte 0xe9"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    pictures(tmp_path / "set/image", ["1.jpg"])
    put(tmp_path / "set/caption/1.txt", "café".encode("latin-1"))
    with pytest.raises(InputError, match=r"1.txt: line 1 is not utf-8"):
        read_content(benchmark("retrieval", "urban1k"), tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, '"\\ud800"', "{", "5" * 5000, "[]", "null"])
@pytest.mark.parametrize("layout", ["karpathy", "dci", "sharegpt4v"])
def test_json_of_another_shape_is_named(tmp_path, content, layout):
    pictures(tmp_path / "set", ["images/a.jpg", "photos/a.jpg"])
    (tmp_path / "set/annotations").mkdir()
    put(tmp_path / "set/file.json", content)
    put(tmp_path / "set/splits.json", content)
    data = {} if layout == "dci" else {"annotations": "file.json"}
    with pytest.raises((InputError, NotAvailable), match=r"(file|splits).json: |holds no picture") as error:
        read_content(benchmark("retrieval", layout, data=data), tmp_path)
    assert error.type is InputError or content == "[]"


def test_two_pictures_of_one_stem_are_refused_where_the_stem_is_the_key(tmp_path):
    datasets.masks(tmp_path / "set")
    pictures(tmp_path / "set/images", ["0.jpg"])
    with pytest.raises(InputError, match="has the same name"):
        read_content(benchmark("segmentation", "masks"), tmp_path)
    (tmp_path / "set/images/0.jpg").unlink()
    (tmp_path / "set/images/0.png").unlink()
    content = read_content(benchmark("segmentation", "masks"), tmp_path)
    assert content.skips.names == {"masks without a picture": ["0.png"]}
