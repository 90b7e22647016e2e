from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.forgotten import Forgotten, ForgottenSample
from flame_core.data.sources import RawPair
from flame_core.data.sources.folder import Folder
from flame_core.data.sources.kept_columns import read_column
from flame_core.data.sources.listing import check_manifest, read_pairs, read_source
from flame_core.data.sources.picture_file import PICTURE_FILE
from flame_core.params import FolderSource
from flame_core.work import WorkCache
from tests.data.drawings import png


def _download(folder: Path, **params: Any) -> tuple[dict[str, RawPair], list[str], Path]:
    """Pairs by key, what is said of rows, and the folder of the list."""
    source = Folder(FolderSource.model_validate({"kind": "folder", "path": "unused", **params}), folder)
    raw = source.download(WorkCache(folder.parent / "work", "download")).folder
    check_manifest(raw, source.pictures(raw))
    pairs = read_pairs(raw, source.pictures(raw))
    assert len({pair.key for pair in pairs}) == len(pairs)
    return {pair.key: pair for pair in pairs}, [problem["detail"] for problem in read_source(raw)["problems"]], raw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def _bytes(pair: RawPair) -> bytes:
    assert pair.image is not None
    return pair.image.read()


def test_pictures_within_a_table(folder: Path):
    rows = [
        {"image": {"bytes": png(1), "path": "x/a.b.png"}, "caption": "One"},
        {"image": {"bytes": png(2), "path": "/home/me/.cache/hub/c.png"}, "caption": "Two"},
        {"image": {"bytes": png(3), "path": None}, "caption": "Three"},
        {"image": {"bytes": png(1), "path": None}, "caption": "One more"},
        {"image": {"bytes": png(4), "path": "c.png"}, "caption": "Four"},
        {"image": {"bytes": None, "path": "disk.png"}, "caption": "Five"},
        {"image": {"bytes": b"", "path": ""}, "caption": "Six"},
        {"image": None, "caption": "Seven"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-0.parquet")
    (folder / "disk.png").write_bytes(png(5))
    pairs, problems, raw = _download(folder, table="train-0.parquet", folders_are_categories=True)
    found = {key: (pair.captions["en"], _bytes(pair)) for key, pair in pairs.items()}
    mark = pairs["c"].image
    assert mark is not None
    [second] = [key for key in found if key.startswith("c-")]
    [dotted] = [key for key in found if key.startswith("x/a_b-")]
    assert found == {
        dotted: (["One", "One more"], png(1)),
        "c": (["Two"], png(2)),
        "train-0/00000003": (["Three"], png(3)),
        second: (["Four"], png(4)),
        "disk": (["Five"], png(5)),
    }
    assert (pairs[dotted].category, pairs["c"].category, pairs["train-0/00000003"].category) == ("x", None, "train-0")
    assert problems == ["row 7 names no picture", "row 8 names no picture"]
    assert (raw / PICTURE_FILE).stat().st_size == sum(len(png(number)) for number in (1, 2, 3, 4, 5))
    assert read_source(raw)["table"]["path"] == "train-0.parquet"


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_column_of_bytes_holds_names_or_pictures(folder: Path, dictionary: bool):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>'
    values = pa.array([b"a.png", png(2), svg, "ä.png".encode(), None])
    image = values.dictionary_encode() if dictionary else values
    pq.write_table(pa.table({"image": image, "caption": ["1", "2", "3", "4", "5"]}), folder / "t.parquet")
    for name in ("a.png", "ä.png"):
        (folder / name).write_bytes(name.encode())
    pairs, problems, _ = _download(folder, table="t.parquet")
    assert sorted((pair.captions["en"], _bytes(pair)) for pair in pairs.values()) == [
        (["1"], b"a.png"),
        (["2"], png(2)),
        (["3"], svg),
        (["4"], "ä.png".encode()),
    ]
    assert problems == ["row 5 names no picture"]


def test_the_same_table_gives_the_same_bytes(folder: Path):
    rows = [{"image": {"bytes": png(n % 7), "path": f"{n}.png"}, "caption": f"{n}"} for n in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet", row_group_size=9)
    _, _, first = _download(folder, table="t.parquet")
    files = {path.name: path.read_bytes() for path in first.iterdir() if path.name != "ledger.json"}
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet", compression="zstd")
    _, _, second = _download(folder, table="t.parquet")
    assert first != second
    for name in ("pairs.parquet", PICTURE_FILE):
        assert (second / name).read_bytes() == files[name]


def test_a_row_without_any_text_is_named(folder: Path):
    silent = ["\u200b", "[]", [{"from": "human", "value": "What is it?"}], {"en": " "}, 7, None, "\u200e\u200d"]
    rows = [{"image": "a.png", "caption": caption} for caption in ["A bird", *silent]]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "a.png").write_bytes(png(1))
    _, problems, _ = _download(folder, table="t.jsonl")
    assert problems == [
        f"row {number} has no caption, and other rows of its picture have one" for number in range(2, 2 + len(silent))
    ]


def test_what_is_forgotten_leaves_its_key_to_nobody(folder: Path):
    rows = [{"image": {"bytes": png(n), "path": "image.png"}, "caption": f"{n}"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    before, _, _ = _download(folder, table="t.parquet")
    gone = before["image"].image
    assert gone is not None
    forgotten = Forgotten((ForgottenSample("s/image", (gone.sha256,)),)).of("s")
    params = FolderSource.model_validate({"kind": "folder", "path": "unused", "table": "t.parquet"})
    raw = Folder(params, folder, forgotten).download(WorkCache(folder.parent / "work", "download")).folder
    assert {pair.key for pair in read_pairs(raw, raw)} == before.keys() - {"image"}
    assert read_source(raw)["forgotten"] == 1 and png(0) not in (raw / PICTURE_FILE).read_bytes()


def test_what_is_forgotten_is_not_shown_as_the_nearest(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder / "b.png").write_bytes(png(2))
    (folder / "t.csv").write_text("image,caption\na.png,a bird\na.png,\nA.JPG,x\nlost.png,y\n")
    forgotten = Forgotten((ForgottenSample("s/a", ()),)).of("s")
    params = FolderSource.model_validate({"kind": "folder", "path": "unused", "table": "t.csv"})
    raw = Folder(params, folder, forgotten).download(WorkCache(folder.parent / "work", "download")).folder
    said = (raw / "source.json").read_text() + (raw / "missing.json").read_text()
    assert "a.png" not in said and "its pictures are called like 'b.png'" in said


def test_a_name_that_is_no_file_shows_the_nearest(folder: Path):
    (folder / "img").mkdir()
    (folder / "img/Case.JPG").write_bytes(png(1))
    (folder / "t.csv").write_text("image,caption\nimg/case.jpg,a\nimg\\Case.JPG,b\n")
    pairs, problems, _ = _download(folder, table="t.csv")
    assert problems == []
    assert pairs["img/Case"].captions == {"en": ["b"]}
    lost = pairs["img/case"]
    assert lost.image is None and lost.missing is not None
    assert lost.missing.endswith(
        "names 'img/case.jpg', which is no picture in the source's folder; the nearest is 'img/Case.JPG'"
    )


def test_a_row_without_a_caption_is_named_where_its_picture_has_others(folder: Path):
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(name.encode())
    (folder / "t.csv").write_text('image,caption,split\na.png,A,\na.png,"  ",test\nb.png,,\nb.png,,\n')
    pairs, problems, _ = _download(folder, table="t.csv")
    assert problems == ["row 2 has no caption, and other rows of its picture have one"]
    assert pairs["a"].split == "test"
    assert pairs["b"].captions == {"en": [""]}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("place", ["t.csv", "set/t.csv", "other/t.csv"])
def test_an_absolute_table_stays_out_of_the_list(tmp_path: Path, folder: Path, place: str, link: bool):
    (tmp_path / "other").mkdir()
    (tmp_path / place).write_text("image,caption\na.png,A\n")
    (folder / "a.png").write_bytes(png(1))
    if link:
        (tmp_path / "elsewhere").mkdir()
        folder = tmp_path / "elsewhere" / "link"
        folder.symlink_to(tmp_path / "set")
    pairs, problems, raw = _download(folder, table=str(tmp_path / place))
    assert [(key, pair.captions) for key, pair in pairs.items()] == [("a", {"en": ["A"]})]
    assert problems == []
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in raw.iterdir() if path.name != "ledger.json")


@pytest.mark.parametrize("name", [".", "./", "/", "//", "..", "\\", "a/..", "~"])
def test_names_that_can_name_no_picture(folder: Path, name: str):
    (folder / "a.png").write_bytes(png(1))
    (folder / "t.csv").write_text(f"image,caption\na.png,One\n{name},Two\n")
    pairs, problems, _ = _download(folder, table="t.csv")
    assert pairs.pop("a").image is not None
    [lost] = pairs.values()
    assert (lost.image, lost.captions, problems) == (None, {"en": ["Two"]}, [])


def test_a_picture_in_a_table_may_have_a_path_that_names_nothing(folder: Path):
    rows = [{"image": {"bytes": png(1), "path": path}, "caption": "One"} for path in (".", "/")]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    pairs, problems, _ = _download(folder, table="t.parquet")
    assert ([_bytes(pair) for pair in pairs.values()], problems) == ([png(1)], [])


def test_blank_cells_are_kept_as_they_are_unless_another_row_of_the_picture_has_a_value(folder: Path):
    for number in range(2):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "t.csv").write_text("image,caption,note\n0.png,A drawing,\n1.png,A drawing, \n1.png,Another,seen\n")
    _, _, raw = _download(folder, table="t.csv", keep_columns=["note"])
    assert [value for _, _, value in read_column(raw, "note")] == ["", "seen"]
