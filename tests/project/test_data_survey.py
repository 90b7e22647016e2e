"""What is found in folders and shards of real pictures; the numbers are those that the folder was written with."""

from __future__ import annotations

import csv
import io
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.project.data_survey import Given, survey


def jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(number))
    return folder


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "project", tmp_path / "project")


def only(found):
    """The only source."""
    (source,) = found.sources.values()
    return source


def write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *rows])


def test_labels_of_boxes_are_no_captions(pictures, layout):
    for number in range(24):
        (pictures / f"{number:02d}.txt").write_text("0 0.51 0.5 0.25 0.3\n7 0.1 0.2 0.3 0.4\n")
    with pytest.raises(
        InputError, match=r"no caption has a letter, such as '0 0\.51 0\.5.+' of 00.*: these are labels"
    ):
        survey(Given(pictures), layout)
    (pictures / "00.txt").write_text("a small bird\n")
    found = survey(Given(pictures), layout)
    assert found.facts["captions without a letter"].startswith("23: 01")


def test_texts_beside_pictures_with_all_that_is_wrong_among_them(pictures, layout):
    for number in range(22):
        (pictures / f"{number:02d}.txt").write_text("a small bird\n")
    (pictures / "21.jpg").write_bytes(jpeg(21)[:300])  # damaged
    (pictures / "gone.txt").write_text("a lost bird\n")
    (pictures / ".hidden.jpg").write_bytes(b"")
    found = survey(Given(pictures), layout)
    assert (*found.sources, found.usable, found.captions, found.words) == ("my-pictures", 21, 22, 3.0)
    facts = found.facts
    assert facts["captions"] == "beside the pictures (23 .txt, 0 .json)"
    assert facts["pictures with captions"] == "22" and facts["pictures without a caption"] == "2: 22, 23"
    assert facts["captions without a picture"] == "1: gone"
    assert facts["pictures that cannot be read"].startswith("1: 21 (image_")
    assert ".hidden.jpg" in facts["not used"]


def test_texts_that_cleaning_leaves_nothing_of_are_no_captions(pictures, layout):
    blank = ["\u200b\u200b", "\ufeff", "&nbsp;", "\u200e\u200d", "[]"]
    for number in range(24):
        (pictures / f"{number:02d}.txt").write_text(blank[number] if number < len(blank) else "a small bird")
    found = survey(Given(pictures), layout)
    assert (found.usable, found.captions) == (19, 19)
    assert found.facts["pictures without a caption"] == "5: 00, 01, 02, ..."


def test_a_table_in_the_folder(pictures, layout):
    write_table(pictures / "captions.csv", [(f"{number:02d}.jpg", "a bird") for number in range(24)])
    found = survey(Given(pictures, language="de"), layout)
    assert (only(found).table, found.language, found.usable) == ("captions.csv", "de", 24)
    assert found.facts["captions"] == "column 'caption' of captions.csv; its column 'image' names the pictures"
    assert survey(Given(pictures / "captions.csv", language="de"), layout) == found


@pytest.mark.parametrize(
    "called", ["/home/ann/{}.jpg", "images/{}.jpg", "C:\\pictures\\{}.jpg", "{}", "{}.JPG", "{}.png"]
)
def test_a_table_that_calls_pictures_otherwise_is_told_with_an_example(pictures, layout, called):
    write_table(pictures / "t.csv", [("none.jpg", "x"), *((called.format(f"{n:02d}"), "a bird") for n in range(24))])
    with pytest.raises(InputError) as told:
        survey(Given(pictures), layout)
    assert f"t.csv has {called.format('00')!r} in its column 'image' for '00.jpg'" in str(told.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("captions.odt", "captions.odt is none of .csv, .tsv, .jsonl, .parquet, .json, .txt, .token: rename it"),
        ("captions.xlsx", "save it as .csv with the columns image and caption"),
        ("gone.csv", "gone.csv does not exist"),
        ("my pictures", "my pictures is no file"),
    ],
)
def test_a_table_that_is_none_is_told_as_that(pictures, layout, name, message):
    for each in ("captions.odt", "captions.xlsx"):
        (pictures.parent / each).write_text("image,caption\n00.jpg,a bird\n")
    with pytest.raises(InputError, match=f"--table: .*{message}"):
        survey(Given(pictures, table=pictures.parent / name), layout)


def test_rows_that_cannot_be_read_and_another_encoding_are_told(pictures, layout):
    rows = [f"{number:02d}.jpg,ein grüner Vogel\n" for number in range(24)]
    table = pictures / "t.csv"
    table.write_bytes(b"image,caption\n" + b"00.jpg,a bird\n" * 200 + "".join(rows).encode("cp1252"))
    with pytest.raises(InputError, match=r"cannot be read: 24: t.csv \(row 201 .* is not utf-8.*\), \.\.\."):
        survey(Given(pictures), layout)
    table.write_bytes(b"image,caption\n" + rows[0].encode() + "".join(rows[1:]).encode("cp1252"))
    found = survey(Given(pictures), layout)
    assert found.facts["encoding"].startswith("cp1252, since t.csv is not UTF-8; but 1 of its first lines are")


def write_coco(path, numbers, key="caption"):
    """As COCO's: addresses and dates beside the names of files."""
    path.parent.mkdir(exist_ok=True)
    images = [
        {"id": n, "file_name": f"{n:02d}.jpg", "coco_url": f"http://x.org/{n}", "date_captured": "2013-11-14 17:02:52"}
        for n in numbers
    ]
    annotations = [{"id": n, "image_id": n, key: "a small bird" if key == "caption" else 3} for n in numbers]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def test_captions_of_coco_among_its_other_documents(pictures, layout):
    (pictures / "images").mkdir()
    for path in pictures.glob("*.jpg"):
        path.rename(pictures / "images" / path.name)
    for name, numbers in (("train", range(16)), ("val", range(16, 24))):
        for kind, key in (("captions", "caption"), ("instances", "category_id")):
            write_coco(pictures / f"annotations/{kind}_{name}2017.json", numbers, key)
    found = survey(Given(pictures), layout)
    assert (only(found).caption_column, found.usable) == ("caption", 16)
    assert only(found).table == str(pictures / "annotations/captions_train2017.json")
    assert found.facts["other tables"].startswith("'captions_val2017.json' also have captions")
    with pytest.raises(InputError, match=r"names a picture of .*annotations, which holds none: --images names another"):
        survey(Given(pictures / "annotations/captions_train2017.json"), layout)


def test_captions_among_texts_that_name_pictures(pictures, layout):
    rows = range(24)
    (pictures / "train.txt").write_text("".join(f"{n:02d}.jpg\n" for n in rows))
    (pictures / "Annotations.txt").write_text("".join(f"{n:02d}.jpg\t{(n + 1) % 24:02d}.jpg#2\t0.5\n" for n in rows))
    (pictures / "README.txt").write_text("Birds.\n00.jpg\n")
    with pytest.raises(InputError, match="24 pictures are there, and none has a caption"):
        survey(Given(pictures), layout)
    (pictures / "tokens.txt").write_text("".join(f"{n:02d}.jpg#0\ta bird\n" for n in rows))
    assert only(survey(Given(pictures), layout)).table == "tokens.txt"


def test_a_folder_of_labels_hides_no_captions(pictures, layout):
    for folder in ("a", "labels", "z"):
        (pictures / folder).mkdir()
    for number in range(60):
        (pictures / f"a/{number:02d}.json").write_text('{"boxes": [1, 2]}')
        (pictures / f"labels/{number:02d}.txt").write_text("0 0.5 0.5 0.1 0.25\n")
    (pictures / "z/captions.json").write_text(json.dumps({f"{n:02d}.jpg": "a bird" for n in range(24)}))
    assert only(survey(Given(pictures), layout)).table == "z/captions.json"


def test_labels_beside_pictures_hide_no_captions(pictures, layout):
    for number in range(24):
        (pictures / f"{number:02d}.txt").write_text("0 0.5 0.5 1e-2 0.25\n")
    (pictures / "captions.json").write_text(json.dumps({f"{n:02d}.jpg": "a bird" for n in range(24)}))
    assert only(survey(Given(pictures), layout)).table == "captions.json"


def test_a_table_of_labels_hides_no_captions(pictures, layout):
    (pictures / "labels.csv").write_text("image,label\n" + "".join(f"{n:02d}.jpg,bird\n" for n in range(24)))
    with pytest.raises(InputError, match=r"labels.csv names pictures .* not clear \(label\)"):
        survey(Given(pictures), layout)
    (pictures / "captions.json").write_text(json.dumps({f"{n:02d}.jpg": "a bird" for n in range(24)}))
    assert only(survey(Given(pictures), layout)).table == "captions.json"
    for number in range(24):
        (pictures / f"{number:02d}.txt").write_text("a small bird\n")
    assert only(survey(Given(pictures), layout)).table is None


def test_a_document_that_cannot_be_used_is_told(pictures, layout):
    (pictures / "c.json").write_text('{"00.jpg": ')
    with pytest.raises(InputError, match=r"--table: .*c\.json cannot be read: not JSON"):
        survey(Given(pictures, table=pictures / "c.json"), layout)
    (pictures / "c.json").write_text(json.dumps([{"image": f"D:\\birds\\{n:02d}.jpg"} for n in range(24)]))
    with pytest.raises(InputError, match=r"c\.json has .* in its column 'image' for '00\.jpg': names must be relative"):
        survey(Given(pictures), layout)


def test_columns_that_are_not_read_are_told(pictures, layout):
    rows = [["image", "caption", "caption_de"], *([f"{n:02d}.jpg", "a bird", "ein Vogel"] for n in range(24))]
    with (pictures / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = survey(Given(pictures), layout)
    assert found.facts["columns not read"].startswith("'caption_de'; captions of several languages")
    assert found.languages == {"en": 24}


def test_fields_beside_pictures_that_are_not_read_are_told(pictures, layout):
    for number in range(24):
        record = {"caption": "a bird", "re_caption": "a small bird on a twig", "title": "a bird in a tree", "clip": 0.3}
        (pictures / f"{number:02d}.json").write_text(json.dumps(record) if number else "[")
    (pictures / "notes.json").write_text('{"about": "what these pictures are"}')
    found = survey(Given(pictures), layout)
    assert found.facts["fields not read"].startswith("'re_caption'; `keep_columns` keeps")
    assert found.usable == 23


@pytest.mark.parametrize("name", ["", "list.csv"])
def test_a_list_of_addresses_is_told_where_it_belongs(tmp_path, layout, name):
    (tmp_path / "here").mkdir()
    write_table(tmp_path / "here/list.csv", [[f"https://x.org/{n}.jpg", "a bird"] for n in range(24)])
    with pytest.raises(InputError, match=r"list.csv lists addresses, .* --demo, .* `kind: urls` "):
        survey(Given(tmp_path / "here" / name), layout)


def test_a_table_beside_the_folder_whose_names_begin_with_it(pictures, layout):
    write_table(pictures.parent / "captions.csv", [(f"my pictures/{number:02d}.jpg", "a bird") for number in range(24)])
    found = survey(Given(pictures), layout)
    assert only(found).path == str(pictures.parent) and only(found).table == "captions.csv" and found.usable == 24


def test_languages_of_the_data_come_before_the_one_that_is_assumed(pictures, layout):
    for number in range(24):
        texts = {"de": ["ein Vogel"], **({"fr": ["un oiseau"]} if number < 12 else {})}
        (pictures / f"{number:02d}.json").write_text(json.dumps({"captions": texts}))
    found = survey(Given(pictures), layout)
    assert found.language == "de" and found.languages == {"de": 24, "fr": 12}


def write_shard(path: Path, record: dict[str, Any], text: str | None = None) -> None:
    members = {"json": json.dumps(record).encode(), **({"txt": text.encode()} if text else {})}
    with tarfile.open(path, "w") as tar:
        for number in range(12):
            for suffix, content in {"jpg": jpeg(number), **members}.items():
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_shards_with_captions_in_a_field_of_json(tmp_path, layout):
    write_shard(tmp_path / "00000.tar", {"alt": "a small bird", "long": "a small bird on a twig", "clip": 0.3})
    found = survey(Given(tmp_path, shards=True), layout)
    assert (only(found).kind, only(found).caption_field, found.usable) == ("webdataset", "alt", 12)
    assert found.facts["fields not read"].startswith("'long'; `keep_columns` keeps")


def test_fields_of_shards_that_repeat_the_text_are_not_told(tmp_path, layout):
    write_shard(
        tmp_path / "00000.tar", {"caption": "a small bird", "url": "http://a/b", "status": "ok"}, "a small bird"
    )
    found = survey(Given(tmp_path, shards=True), layout)
    assert found.usable == 12 and "fields not read" not in found.facts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, r"24 pictures are there, and none has a caption: write bird.txt or bird.json"),
        (
            lambda folder: [(folder / f"{n:02d}.txt").write_text("a bird") for n in range(3)],
            "3 pictures with captions are too few",
        ),
        (
            lambda folder: write_table(folder / "t.csv", [("z.jpg", "a bird")]),
            r"no row of t.csv names a picture of .*00.jpg",
        ),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no pictures"),
    ],
)
def test_data_that_cannot_be_used_are_told_with_what_to_do(pictures, layout, make, message):
    make(pictures)
    with pytest.raises(InputError, match=message):
        survey(Given(pictures), layout)


@pytest.mark.parametrize("table", ["train/metadata.csv", "results.csv", "notes/deep/results.csv"])
def test_a_table_that_names_pictures_from_a_folder_inside_on(pictures, layout, table):
    """It is taken if all pictures are in that folder; else the folder is told."""
    (pictures / "train").mkdir()
    for path in pictures.glob("*.jpg"):
        path.rename(pictures / "train" / path.name)
    place = pictures / table
    place.parent.mkdir(parents=True, exist_ok=True)
    write_table(place, [(f"{number:02d}.jpg", "a bird") for number in range(24)])
    (pictures / "README.txt").write_text("no caption of any picture")
    found = survey(Given(pictures), layout)
    assert (found.usable, only(found).path) == (24, str(pictures / "train"))
    (pictures / "test").mkdir()
    (pictures / "test/other.jpg").write_bytes(jpeg(99))
    with pytest.raises(InputError) as told:
        survey(Given(pictures), layout)
    assert f"no row of {table} names a picture" in str(told.value)
    words = shlex.split(str(told.value).rpartition("give it with ")[2])
    assert words == ["--images", str(pictures / "train"), "--table", str(place)]
    assert survey(Given(pictures / "train", table=place), layout).usable == 24


def test_pairs_of_other_splits_are_not_counted(pictures, layout):
    splits = ["train"] * 12 + ["restval"] * 3 + ["dev"] * 4 + ["test"] * 5
    rows = [{"image": f"{n:02d}.jpg", "caption": "a bird", "split": split} for n, split in enumerate(splits)]
    (pictures / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = survey(Given(pictures), layout)
    assert (found.usable, found.captions) == (19, 19)
    assert found.facts["pairs of other splits, left out"] == "'test' 5"
    (pictures / "t.jsonl").write_text("".join(json.dumps(row | {"split": 0.5}) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"(?s)`split` says of 24 pairs .* left out: '0.5' 24"):
        survey(Given(pictures), layout)


def test_an_address_of_a_bucket_is_told(layout):
    for scheme in ("s3", "gs"):
        with pytest.raises(
            InputError, match=f"{scheme}://bucket/x is an address, .* write the address into params.yaml"
        ):
            survey(Given(Path(f"{scheme}://bucket/x"), shards=True), layout)


def test_a_place_of_another_kind_is_told(pictures, layout):
    with pytest.raises(InputError, match="does not exist"):
        survey(Given(pictures / "no"), layout)
    with pytest.raises(InputError, match="is a file; name the folder"):
        survey(Given(pictures / "00.jpg"), layout)
    with pytest.raises(InputError, match=r"holds no .tar; give a folder of pictures with --images"):
        survey(Given(pictures, shards=True), layout)
    for path in pictures.iterdir():
        path.unlink()
    (pictures / "0.tar").touch()
    with pytest.raises(InputError, match="--shards instead of --images"):
        survey(Given(pictures), layout)
