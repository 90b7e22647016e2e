"""`flame init` on folders as well-known data sets are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import FolderSource, parse_params
from flame_core.project.data_survey import survey
from flame_core.project.folder_survey import Given
from flame_core.project.params_file import params_text
from flame_core.shipped import shipped
from tests.data.sources.test_webdataset import write_tar
from tests.project.test_data_survey import jpeg, only

NAMES = [f"{number:02d}.jpg" for number in range(24)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project", tmp_path / "project")


def pictures(folder: Path, numbers: range = range(24)) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(number))
    return folder


def coco(path: Path, numbers: range = range(24)) -> None:
    images = [{"id": number, "file_name": f"{number:02d}.jpg"} for number in numbers]
    annotations = [
        {"id": 2 * number + i, "image_id": number, "caption": "a bird"} for number in numbers for i in (0, 1)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "licenses": [{"id": 1}]}))


def found_in(root: Path, layout: Layout, **given: Any) -> FolderSource:
    found = survey(Given(root, **given), layout)
    source = only(found)
    assert found.usable == 24 and isinstance(source, FolderSource)
    return source


def test_coco(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "coco/train2017").parent
    coco(root / "annotations/captions_train2017.json")
    (root / "annotations/instances_train2017.json").write_text('{"images": [], "annotations": []}')
    source = found_in(root, layout)
    assert (source.path, source.image_column, source.caption_column) == (
        str(root / "train2017"),
        "file_name",
        "caption",
    )
    assert source.table == str(root / "annotations/captions_train2017.json")


def test_one_part_of_coco_has_its_captions_in_the_folder_beside_it(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "coco/train2017").parent
    pictures(root / "val2017", range(50, 60))
    coco(root / "annotations/captions_train2017.json")
    coco(root / "annotations/captions_val2017.json", range(50, 60))
    source = found_in(root / "train2017", layout)
    assert source.table == str(root / "annotations/captions_train2017.json")


def test_parts_of_coco_are_sources_with_their_splits(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "coco/train2017").parent
    pictures(root / "val2017", range(50, 60))
    pictures(root / "unlabeled2017", range(80, 82))
    coco(root / "annotations/captions_train2017.json")
    coco(root / "annotations/captions_val2017.json", range(50, 60))
    found = survey(Given(root), layout)
    assert {name: (source.path, source.split) for name, source in found.sources.items()} == {
        "coco-train2017": (str(root / "train2017"), "train"),
        "coco-val2017": (str(root / "val2017"), "val"),
    }
    assert (found.usable, found.fixed) == (34, {"train": 24, "val": 10})
    assert found.facts["val2017 (val)"].startswith("column 'caption' of captions_val2017.json")
    assert found.facts["pictures elsewhere, left out"] == "2: unlabeled2017/80.jpg, unlabeled2017/81.jpg"
    params = parse_params(
        yaml.safe_load(params_text(found, layout.root, "cpu")), Path("params.yaml"), shipped("recipes")
    )
    assert params.sources == found.sources and params.evaluate.recall_at == [1, 2]


def test_parts_whose_names_say_no_split_are_told(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "coco/2014").parent
    pictures(root / "2017", range(50, 60))
    coco(root / "annotations/captions_2014.json")
    coco(root / "annotations/captions_2017.json", range(50, 60))
    with pytest.raises(InputError) as told:
        survey(Given(root), layout)
    said = str(told.value)
    for year in ("2014", "2017"):
        assert f"annotations/captions_{year}.json fits the pictures below {root / year}" in said
    assert f"(--images {root / '2014'} --table {root / 'annotations/captions_2014.json'})" in said
    assert "`split: val`" in said and "a column must hold" not in said
    found_in(root / "2014", layout, table=root / "annotations/captions_2014.json")


def test_flickr8k_with_all_its_texts(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "flickr8k/Flicker8k_Dataset").parent
    texts = root / "Flickr8k_text"
    texts.mkdir()
    lines = [f"{name}#{number}\tA bird, on a branch\n" for name in NAMES for number in range(5)]
    for name in ("Flickr8k.token.txt", "Flickr8k.lemma.token.txt"):
        (texts / name).write_text("".join(lines))
    (texts / "CrowdFlowerAnnotations.txt").write_text("".join(f"{name}\t{name}#2\t1\t3\t0\n" for name in NAMES))
    (texts / "Flickr_8k.trainImages.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (texts / "readme.txt").write_text("Please cite us, and do not share the pictures.\n")
    found = survey(Given(root), layout)
    source = only(found)
    assert isinstance(source, FolderSource) and found.usable == 24
    assert (source.path, source.table) == (str(root / "Flicker8k_Dataset"), str(texts / "Flickr8k.token.txt"))
    assert (source.delimiter, source.columns) == ("\t", ["image", "caption"])
    assert found.facts["other tables"].startswith("'Flickr8k.lemma.token.txt' also have captions")


@pytest.mark.parametrize(("other", "split"), [("validation", "train"), ("test", None)])
def test_a_table_is_about_the_pictures_beside_it(tmp_path: Path, layout: Layout, other: str, split: str | None):
    """Parts of a data set may have files of the same names; a part for tests is left out."""
    root = tmp_path / "set"
    for part in ("train", other):
        rows = [{"file_name": name, "text": f"a bird for the {part}"} for name in NAMES]
        (pictures(root / part) / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert found_in(root / part, layout).table == "metadata.jsonl"
    found = survey(Given(root), layout)
    wanted = {"set-train": split} | ({"set-validation": "val"} if split else {})
    assert {name: source.split for name, source in found.sources.items()} == wanted
    assert all(source.table == "metadata.jsonl" for source in found.sources.values())


@pytest.mark.parametrize(("name", "above"), [("captions.txt", ""), ("captions.json", ""), ("captions.json", "Images/")])
def test_a_document_beside_the_folder_of_pictures(tmp_path: Path, layout: Layout, name: str, above: str):
    root = pictures(tmp_path / "flickr8k/Images").parent
    rows = {f"{above}{each}": "a small bird" for each in NAMES}
    text = json.dumps(rows) if name.endswith(".json") else "".join(f"{each},{said}\n" for each, said in rows.items())
    (root / name).write_text(text if name.endswith(".json") else f"image,caption\n{text}")
    source = found_in(root / "Images", layout)
    assert (Path(source.path) / str(source.table)).resolve() == root / name


def test_shards_with_members_caption(tmp_path: Path, layout: Layout):
    members = [
        (f"{n}.{kind}", jpeg(n) if kind == "jpg" else b"a bird") for n in range(24) for kind in ("jpg", "caption")
    ]
    write_tar(tmp_path / "a.tar", members)
    found = survey(Given(tmp_path, shards=True), layout)
    assert found.usable == 24 and found.facts["captions"] == "in the .txt or .caption of each sample"


def test_a_document_with_names_of_files(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "set")
    (root / "captions.json").write_text(json.dumps({name: ["a small bird"] for name in NAMES}))
    (root / "package.json").write_text('{"name": "set", "version": "1.0"}')
    source = found_in(root, layout)
    assert (source.table, source.image_column, source.caption_column) == ("captions.json", "image", "caption")


def test_a_document_beside_captioned_pictures_is_none_of_their_captions(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "set")
    for name in NAMES:
        (root / name).with_suffix(".caption").write_text("a small bird")
    (root / "captions.json").write_text(json.dumps({name: ["a large bird"] for name in NAMES}))
    found = survey(Given(root), layout)
    assert only(found).table is None and found.usable == 24
    assert found.facts["captions"] == "beside the pictures (0 .txt, 1 .json, 24 .caption)"


def test_conversations_are_captions_if_they_are_named(tmp_path: Path, layout: Layout):
    root = pictures(tmp_path / "llava/images").parent
    said = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a small bird"}]
    rows = [{"id": name, "image": f"images/{name}", "conversations": said} for name in NAMES]
    (root / "llava.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"not clear .*conversations.*--caption-column"):
        survey(Given(root), layout)
    assert found_in(root, layout, caption_column="conversations").caption_column == "conversations"
