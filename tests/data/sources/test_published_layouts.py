"""Captions in the files in which well-known data sets are published, beside or above a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.tar_content import read_samples
from flame_core.errors import InputError
from tests.data.sources.one_table import NAMES, listed, pictures_in
from tests.data.sources.test_webdataset import write_tar

TEXTS = {name: [f'A "drawing", the number {name[0]}', f"Drawing {name[0]}."] for name in NAMES}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return pictures_in(tmp_path / "set")


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


def coco(root: Path) -> dict[str, Any]:
    images = [{"id": 10 + number, "file_name": name, "height": 9} for number, name in enumerate(NAMES)]
    rows = [(10 + number, text) for number, name in enumerate(NAMES) for text in TEXTS[name]]
    annotations = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(rows)]
    document = {"info": {}, "licenses": [{"id": 1}], "images": images, "annotations": annotations}
    write_json(root / "annotations/captions_train2017.json", document)
    return {"table": "../annotations/captions_train2017.json", "image_column": "file_name"}


def karpathy(root: Path) -> dict[str, Any]:
    images = [
        {"filename": name, "split": "restval", "imgid": number, "sentences": [{"raw": text} for text in TEXTS[name]]}
        for number, name in enumerate(NAMES)
    ]
    write_json(root / "dataset_flickr8k.json", {"images": images, "dataset": "flickr8k"})
    return {"table": "../dataset_flickr8k.json", "image_column": "filename", "caption_column": "sentences"}


def karpathy_of_coco(root: Path) -> dict[str, Any]:
    images = [
        {"filepath": "images", "filename": name, "sentences": [{"raw": text} for text in TEXTS[name]]} for name in NAMES
    ]
    write_json(root / "dataset_coco.json", {"images": images})
    return {"path": ".", "table": "dataset_coco.json", "image_column": "filename", "caption_column": "sentences"}


def flickr_token(root: Path) -> dict[str, Any]:
    rows = [f"{name}#{number}\t{text}\n" for name in NAMES for number, text in enumerate(TEXTS[name])]
    (root / "Flickr8k.token.txt").write_text("".join(rows))
    return {"table": "../Flickr8k.token.txt", "columns": ["image", "caption"]}


def flickr30k(root: Path) -> dict[str, Any]:
    rows = [f"{name}| {number}| {text}\n" for name in NAMES for number, text in enumerate(TEXTS[name])]
    (root / "results.csv").write_text("image_name| comment_number| comment\n" + "".join(rows))
    return {"table": "../results.csv", "image_column": "image_name", "caption_column": " comment"}


def kaggle(root: Path) -> dict[str, Any]:
    quoted = {name: [text.replace('"', '""') for text in texts] for name, texts in TEXTS.items()}
    rows = [f'{name},"{text}"\n' for name in NAMES for text in quoted[name]]
    (root / "captions.txt").write_text("image,caption\n" + "".join(rows))
    return {"table": "../captions.txt"}


def records(root: Path) -> dict[str, Any]:
    write_json(root / "train.json", [{"image": name, "caption": TEXTS[name]} for name in NAMES])
    return {"table": "../train.json"}


def records_under_a_name(root: Path) -> dict[str, Any]:
    document = {"version": 1, "data": [{"image": name, "caption_str": text} for name in NAMES for text in TEXTS[name]]}
    write_json(root / "textcaps.json", document)
    return {"table": "../textcaps.json", "caption_column": "caption_str"}


def by_name(root: Path) -> dict[str, Any]:
    write_json(root / "captions.json", TEXTS)
    return {"table": "../captions.json"}


def by_name_with_fields(root: Path) -> dict[str, Any]:
    write_json(root / "captions.json", {name: {"caption": TEXTS[name], "width": 9} for name in NAMES})
    return {"table": "../captions.json", "image_column": "file"}


def by_name_with_lists_of_records(root: Path) -> dict[str, Any]:
    write_json(root / "captions.json", {name: [{"caption": text, "by": 7} for text in TEXTS[name]] for name in NAMES})
    return {"table": "../captions.json"}


def by_name_with_other_fields(root: Path) -> dict[str, Any]:
    write_json(root / "captions.json", {name: {"captions": TEXTS[name], "width": 9} for name in NAMES})
    return {"table": "../captions.json", "caption_column": "captions"}


def by_split(root: Path) -> dict[str, Any]:
    rows = [{"image": name, "caption": TEXTS[name]} for name in NAMES]
    write_json(root / "annotation.json", {"train": rows[:2], "validation": rows[2:3], "test": rows[3:]})
    return {"table": "../annotation.json"}


def annotations_that_name_their_files(root: Path) -> dict[str, Any]:
    rows = [{"file_name": name, "caption": text} for name in NAMES for text in TEXTS[name]]
    write_json(root / "c.json", {"images": [{"file_name": name} for name in NAMES], "annotations": rows})
    return {"table": "../c.json", "image_column": "file_name"}


def messages(root: Path) -> dict[str, Any]:
    rows = [[{"role": "assistant", "content": text}] for name in NAMES for text in TEXTS[name]]
    places = [name for name in NAMES for _ in TEXTS[name]]
    write_json(root / "sft.json", [{"messages": said, "images": [at]} for at, said in zip(places, rows, strict=True)])
    return {"table": "../sft.json", "image_column": "images", "caption_column": "messages"}


def pandas_columns(root: Path) -> dict[str, Any]:
    rows = [(name, text) for name in NAMES for text in TEXTS[name]]
    columns = {name: {str(number): row[place] for number, row in enumerate(rows)} for place, name in enumerate("ab")}
    write_json(root / "frame.json", columns)
    return {"table": "../frame.json", "image_column": "a", "caption_column": "b"}


def lists_of_columns(root: Path) -> dict[str, Any]:
    write_json(root / "columns.json", {"image": NAMES, "caption": [TEXTS[name] for name in NAMES]})
    return {"table": "../columns.json"}


@pytest.mark.parametrize(
    "publish",
    [
        coco,
        karpathy,
        karpathy_of_coco,
        flickr_token,
        flickr30k,
        kaggle,
        records,
        records_under_a_name,
        by_name,
        by_name_with_fields,
        by_name_with_other_fields,
        by_name_with_lists_of_records,
        by_split,
        annotations_that_name_their_files,
        messages,
        pandas_columns,
        lists_of_columns,
    ],
)
def test_every_caption_of_every_picture_is_there(root: Path, publish: Callable[[Path], dict[str, Any]]):
    params = publish(root)
    pairs, about = listed(root, **params)
    above = "images/" if params.get("path") == "." else ""
    assert {key: [text.strip() for text in pair.captions["en"]] for key, pair in pairs.items()} == {
        f"{above}{name[0]}": TEXTS[name] for name in NAMES
    }
    assert all(pair.image for pair in pairs.values()) and not about["problems"]
    splits = {karpathy: ["train"] * 4, by_split: ["train", "train", "val", "test"]}
    assert [pair.split for pair in pairs.values()] == splits.get(publish, [None] * 4)


def test_an_image_of_coco_without_a_caption_and_a_caption_without_an_image(root: Path):
    params = coco(root)
    path = root / "annotations/captions_train2017.json"
    document = json.loads(path.read_text())
    document["images"] += [{"id": 99, "file_name": "gone.png"}, {"id": 10, "file_name": "other.png"}]
    document["annotations"][1]["image_id"] = 1000
    del document["annotations"][6:]
    write_json(path, document)
    pairs, about = listed(root, **params)
    assert [pair.captions.get("en", []) for pair in pairs.values()] == [
        TEXTS["0.png"][:1],
        *map(TEXTS.get, NAMES[1:3]),
        [],
        [],
    ]
    assert pairs["gone"].image is None and pairs["3"].image is not None
    assert [problem["detail"] for problem in about["problems"]] == [
        "image 6 has the id 10 of another one",
        "annotation 2 is about the image 1000, which `images` does not list",
    ]


def test_images_and_annotations_of_coco_without_a_number_belong_to_nothing(root: Path):
    params = coco(root)
    path = root / "annotations/captions_train2017.json"
    document = json.loads(path.read_text())
    del document["images"][0]["id"], document["annotations"][2]["image_id"]
    write_json(path, document)
    pairs, about = listed(root, **params)
    assert [pair.captions.get("en", []) for pair in pairs.values()] == [
        [],
        TEXTS["1.png"][1:],
        *map(TEXTS.get, NAMES[2:]),
    ]
    assert [problem["detail"] for problem in about["problems"]] == [
        "image 1 has no id",
        "annotation 1 is about the image 10, which `images` does not list",
        "annotation 2 is about the image 10, which `images` does not list",
        "annotation 3 is about the image None, which `images` does not list",
    ]


def test_the_licence_of_an_image_of_coco_is_the_one_that_its_number_means(root: Path):
    params = coco(root)
    path = root / "annotations/captions_train2017.json"
    document = json.loads(path.read_text())
    document["licenses"] = [{"id": 1, "name": "Attribution License"}, {"id": 2, "url": "http://x.org/2", "name": " "}]
    for image, number in zip(document["images"], (1, 1, 7, None), strict=True):
        image["license"] = number
    write_json(path, document)
    pairs, _ = listed(root, licence="CC0", **params)
    assert [pair.licence for pair in pairs.values()] == ["Attribution License"] * 2 + ["CC0"] * 2


def test_the_first_answer_of_a_conversation_is_a_caption(root: Path):
    said = {
        name: [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": text},
            {"from": "gpt", "value": "x"},
        ]
        for name, (text, _) in TEXTS.items()
    }
    write_json(root / "llava.json", [{"id": name, "image": name, "conversations": said[name]} for name in NAMES])
    pairs, _ = listed(root, table="../llava.json", caption_column="conversations")
    assert [pair.captions for pair in pairs.values()] == [{"en": TEXTS[name][:1]} for name in NAMES]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"images": [', r"t\.json cannot be read: not JSON: .*line 1 column 13"),
        ("[]", "none of the forms that are read: a list of records"),
        ("{}", "none of the forms"),
        ("3", "none of the forms"),
        ('{"info": 3, "year": 2014}', "none of the forms"),
        ('{"images": [{"id": 1}], "categories": [{"id": 2}]}', "none of the forms"),
        ('{"image": ["0.png"], "caption": ["a", "b"]}', "do not have as many values: 'image' 1, 'caption' 2"),
        ('{"image": ["0.png"], "caption": {"0": "a"}}', "do not have as many values"),
        ('[{"image": "0.png", "text": "x"}]', "has no column 'caption'; it has image, text"),
        ("[" * 100_000, "nested more than"),
        ('{"image": "0.png"}\n{"image": "1.png"}', r"line 2 column 1 .*; with a record in each line, it is a \.jsonl"),
        (b'[{"image": "\xff"}]', "is not utf-8"),
        ('{"0.png": "a", "1.png": "b", "0.png": "c"}', r"the key '0\.png' is there 2 times: write its captions as one"),
    ],
)
def test_documents_that_cannot_be_used(root: Path, document: str | bytes, message: str):
    (root / "t.json").write_bytes(document if isinstance(document, bytes) else document.encode())
    with pytest.raises(InputError, match=message):
        listed(root, table="../t.json")


def test_records_that_cannot_be_used_cost_only_themselves(root: Path):
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    document = [{"image": name, "caption": "A drawing"} for name in NAMES]
    document[1]["caption"], document[2]["caption"] = deep, "x" * (1 << 21)
    write_json(root / "t.json", [*document, "no record"])
    pairs, about = listed(root, table="../t.json")
    assert [key for key, pair in pairs.items() if pair.captions] == ["0", "3"]
    assert [problem["detail"] for problem in about["problems"]] == [
        "record 2 is nested too deeply",
        "record 3 has 2,097,157 characters",
        "record 5 is no object",
    ]


def test_a_document_is_not_a_table_unless_it_is_named(root: Path):
    records(root)
    pairs, _ = listed(root, ".")
    assert [pair.captions for pair in pairs.values()] == [{}] * 5


def test_a_table_may_be_larger_than_the_text_of_a_picture(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flame_core.data.sources.manifest.LARGEST_TEXT", 40)
    pairs, _ = listed(root, **records(root))
    assert all(pair.captions for pair in pairs.values())


def test_a_document_beyond_the_limit_is_told(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flame_core.data.sources.json_rows.LARGEST", 40)
    with pytest.raises(InputError, match=r"it has more than 40 bytes; a \.jsonl is read line"):
        listed(root, **records(root))


def test_captions_beside_pictures_as_trainers_of_diffusion_models_write_them(root: Path):
    for name in NAMES:
        (root / "images" / f"{name[0]}.caption").write_text("\n".join(TEXTS[name]))
    pairs, about = listed(root)
    assert {key: pair.captions for key, pair in pairs.items()} == {name[0]: {"en": TEXTS[name]} for name in NAMES}
    assert "unused" not in about


def test_members_of_a_tar_of_every_kind_that_holds_captions(tmp_path: Path):
    members = [
        ("1.jpg", b"x"),
        ("1.txt", b"A jay."),
        ("1.caption", b"A blue bird."),
        ("1.json", b'{"captions": "Jay"}'),
    ]
    write_tar(tmp_path / "a.tar", members)
    (sample,) = read_samples(tmp_path, "a.tar", [], unused := Unused())
    assert (sample.texts, sample.records) == (["A jay.", "A blue bird."], [{"captions": "Jay"}]) and not unused.rows()


@pytest.mark.parametrize(("split", "found"), [("val", ["val"] * 3), ("train", ["train", "test", "train"])])
def test_a_source_may_be_one_split(root: Path, split: str, found: list[str]):
    rows = zip(NAMES, ["", "test", "val"], strict=False)
    (root / "t.csv").write_text("image,caption,split\n" + "".join(f"{name},a,{own}\n" for name, own in rows))
    pairs, _ = listed(root, table="../t.csv", split=split)
    assert [pair.split for pair in pairs.values() if pair.captions] == found
    (root / "images/0.txt").write_text("a")
    assert listed(root, split=split)[0]["0"].split == split


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1.0, **{name: texts[:1] for name, texts in TEXTS.items()}},
        {"train": [*({"image": name, "caption": texts[0]} for name, texts in TEXTS.items()), None], "test": [{}]},
        {"data": [*({"image": name, "caption": texts[0]} for name, texts in TEXTS.items()), None], "count": 4},
    ],
)
def test_what_is_no_record_hides_none(root: Path, document: Any):
    write_json(root / "t.json", document)
    pairs, _ = listed(root, table="../t.json")
    assert [pair.captions for pair in pairs.values()] == [{"en": texts[:1]} for texts in TEXTS.values()]


def test_columns_of_a_document_may_stand_beside_other_values(root: Path):
    document = {"image": NAMES, "caption": [text for text, _ in TEXTS.values()], "version": 2, "tags": ["x"]}
    write_json(root / "t.json", document)
    pairs, _ = listed(root, table="../t.json")
    assert [pair.captions for pair in pairs.values()] == [{"en": texts[:1]} for texts in TEXTS.values()]


@pytest.mark.parametrize("place", ["", "/", "0.png", "images/0.png"])
def test_a_place_of_karpathy_s_that_is_none(root: Path, place: str):
    image = {"filepath": place, "filename": "0.png" if "images" not in place else place, "sentences": [{"raw": "a"}]}
    write_json(root / "t.json", {"images": [image]})
    path = "." if "images" in place else "images"
    pairs, _ = listed(root, path, table=str(root / "t.json"), image_column="filename", caption_column="sentences")
    assert [pair.captions for pair in pairs.values() if pair.captions and pair.image] == [{"en": ["a"]}]
