from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.sources import RawPair
from flame_core.data.sources.folder import Folder
from flame_core.data.sources.listing import read_manifest, read_pairs, read_source
from flame_core.errors import InputError
from flame_core.params import FolderSource
from flame_core.work import WorkCache
from tests.data.drawings import png


def _download(folder: Path, **params):
    source = Folder(FolderSource(kind="folder", path="unused", **params), folder)
    unit = source.download(WorkCache(folder.parent / "work", "download"))
    return unit, read_pairs(unit.folder, folder)


def _by_key(pairs: list[RawPair]) -> dict[str, RawPair]:
    assert len({pair.key for pair in pairs}) == len(pairs)
    return {pair.key: pair for pair in pairs}


def _unused(unit) -> dict[tuple[str, str], int]:
    return {(group["reason"], group["kind"]): group["count"] for group in read_source(unit.folder).get("unused", [])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "animals" / "birds").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("table", [None, "a.csv"])
def test_other_tables_are_counted_as_such(folder: Path, table: str | None):
    (folder / "a.png").write_bytes(png(1))
    for name in ("a.csv", "b.csv", "part-1.parquet", "rows.jsonl"):
        (folder / name).write_text("image,caption\na.png,A jay.\n")
    unit, _ = _download(folder, table=table)
    kinds = [".csv", ".jsonl", ".parquet"]
    assert _unused(unit) == {("other_table", kind): 1 + (kind == ".csv" and table is None) for kind in kinds}


def test_sidecars(folder: Path):
    (folder / "animals/birds/jay.png").write_bytes(png(1))
    (folder / "animals/birds/jay.txt").write_text("A jay.\n\n  \nA blue bird.\n")
    (folder / "animals/birds/jay.json").write_text(
        json.dumps({"captions": {"de": ["Ein Häher"]}, "keywords": ["bird"], "title": "jay", "licence": "CC0"})
    )
    (folder / "Sun Set.JPG").write_bytes(png(2))
    (folder / "Sun Set.txt").write_text("\ufeffThe sun.", "utf-8")
    (folder / "orphan.txt").write_text("Nothing to see.")
    (folder / "silent.png").write_bytes(png(3))
    (folder / "notes.md").write_text("not a pair")
    (folder / ".hidden.png").write_bytes(png(4))
    unit, pairs = _download(folder, licence="own", folders_are_categories=True)
    assert _unused(unit) == {("hidden", ".png"): 1, ("unsupported_suffix", ".md"): 1}
    pairs = _by_key(pairs)
    jay = pairs["animals/birds/jay"]
    assert jay.captions == {"en": ["A jay.", "A blue bird."], "de": ["Ein Häher"]}
    assert (jay.category, jay.title, jay.keywords, jay.licence) == ("animals/birds", "jay", ["bird"], "CC0")
    assert jay.image is not None and jay.image.read() == png(1)
    sun = next(pair for key, pair in pairs.items() if key.startswith("Sun_Set-"))
    assert (sun.captions, sun.category, sun.licence) == ({"en": ["The sun."]}, None, "own")
    assert pairs["orphan"].image is None
    assert pairs["silent"].captions == {}
    assert len(pairs) == 4


def test_two_pictures_of_one_stem_are_both_listed(folder: Path):
    for name in ("a.jpg", "a.png"):
        (folder / name).write_bytes(png(1))
    _, pairs = _download(folder)
    assert [pair.key for pair in pairs] == ["a", "a"]


def test_a_damaged_sidecar_is_a_problem_and_no_crash(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder / "a.json").write_text('{"caption": ')
    (folder / "b.png").write_bytes(png(2))
    (folder / "b.json").write_text("[" * 100_000)
    unit, pairs = _download(folder)
    assert [pair.captions for pair in pairs] == [{}, {}]
    assert [problem["file"] for problem in read_source(unit.folder)["problems"]] == ["a.json", "b.json"]
    assert unit.record.failures == {"a.json": "damaged_file", "b.json": "damaged_file"}


ROWS = [
    {"image": "animals/a.png", "caption": "One", "language": "en", "album": "x"},
    {"image": "animals/a.png", "caption": "Eins", "language": "de", "album": "x"},
    {"image": "./gone.png", "caption": "Gone", "language": "", "album": "y"},
]


def _write_table(path: Path, rows: list[dict]) -> None:
    match path.suffix:
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
            path.write_text("\r\n".join(lines), "utf-8-sig")
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables(folder: Path, kind: str):
    (folder / "animals/a.png").write_bytes(png(1))
    (folder / "unnamed.png").write_bytes(png(2))
    (folder / "a.txt").write_text("sidecars do not count beside a table")
    _write_table(folder / f"list.{kind}", ROWS)
    options = {"group_field": "album", "language": "fr", "folders_are_categories": True}
    _, pairs = _download(folder, table=f"list.{kind}", **options)
    pairs = _by_key(pairs)
    assert sorted(pairs) == ["animals/a", "gone", "unnamed"]
    assert pairs["animals/a"].captions == {"en": ["One"], "de": ["Eins"]}
    assert (pairs["animals/a"].group, pairs["animals/a"].category) == ("x", "animals")
    assert (pairs["gone"].captions, pairs["gone"].image) == ({"fr": ["Gone"]}, None)
    assert (pairs["unnamed"].captions, pairs["unnamed"].image is None) == ({}, False)


def test_awkward_captions_survive_a_csv(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    long = "very " * 40_000
    (folder / "t.csv").write_text(
        f'image,caption\na.png,"says ""hi"", {{caption}}\nnext <|endoftext|>"\na.png,{long}\n'
    )
    _, pairs = _download(folder, table="t.csv")
    assert pairs[0].captions == {"en": ['says "hi", {caption}\nnext <|endoftext|>', long]}


def test_damaged_rows_are_problems(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder / "t.jsonl").write_text('{"image": "a.png", "caption": "A"}\n{"image": \n{"image": null, "caption": "B"}\n')
    unit, pairs = _download(folder, table="t.jsonl")
    assert [pair.captions for pair in pairs] == [{"en": ["A"]}]
    details = [problem["detail"] for problem in read_source(unit.folder)["problems"]]
    assert details == ["line 2 is not a JSON object", "row 3 names no picture"]


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("t.csv", "image,text\na.png,x\n", "no column 'caption'; it has image, text"),
        ("t.csv", "", "no column 'image'"),
        ("t.xlsx", "image\tcaption\n", "must be .csv, .tsv, .jsonl, .parquet, .json, .txt, .token, not .xlsx"),
        ("t.csv.gz", "", "unpack a compressed table first"),
        ("t.parquet", "PAR1 no", "not a readable parquet file"),
        (None, "", "does not exist"),
    ],
)
def test_tables_that_cannot_be_used(folder: Path, table: str | None, content: str, message: str):
    (folder / "a.png").write_bytes(png(1))
    if table:
        (folder / table).write_text(content)
    with pytest.raises(InputError, match=message):
        _download(folder, table=table or "none.csv")


def test_the_field_of_groups_must_be_a_column(folder: Path):
    (folder / "t.csv").write_text("image,caption\na.png,A\n")
    with pytest.raises(InputError, match="no column 'album'; it has caption, image"):
        _download(folder, table="t.csv", group_field="album")


def test_sidecars_of_other_encodings(folder: Path):
    text = "l\u2019\u00e9t\u00e9"
    contents = {
        "bom.txt": text.encode("utf-16"),
        "bom.json": json.dumps({"caption": text}, ensure_ascii=False).encode("utf-16"),
        "plain.json": json.dumps({"caption": text}, ensure_ascii=False).encode("utf-16-le"),
        "old.txt": ("one\n" + text).encode("cp1252"),
        "old.json": json.dumps({"caption": text}, ensure_ascii=False).encode("cp1252"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    unit, pairs = _download(folder)
    assert {pair.key: pair.captions for pair in pairs} == {"bom": {"en": [text]}, "plain": {"en": [text]}, "old": {}}
    problems = {problem["file"]: problem["detail"] for problem in read_source(unit.folder)["problems"]}
    assert sorted(problems) == ["old.json", "old.txt"]
    assert problems["old.txt"].startswith("line 2 is not utf-8: byte 0x92")
    for name in ("bom.txt", "bom.json", "plain.json"):
        (folder / name).unlink()
    _, pairs = _download(folder, encoding="cp1252")
    assert [pair.captions for pair in pairs] == [{"en": ["one", text]}]


def test_a_table_cannot_reach_out_of_its_folder(folder: Path):
    (folder.parent / "secret.png").write_bytes(png(1))
    (folder / "a.png").write_bytes(png(2))
    _write_table(
        folder / "t.jsonl",
        [{"image": "../secret.png", "caption": "x"}, {"image": str(folder.parent / "secret.png"), "caption": "y"}],
    )
    _, pairs = _download(folder, table="t.jsonl")
    assert [pair.image is None for pair in pairs if pair.captions] == [True, True]


def test_an_unreadable_file_is_a_problem(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder / "b.png").symlink_to(folder / "nowhere.png")
    os.close(os.open(os.fsencode(folder) + b"/\xff.png", os.O_CREAT | os.O_WRONLY))
    unit, pairs = _download(folder)
    assert [pair.key for pair in pairs] == ["a"]
    problems = {problem["file"]: problem["detail"] for problem in read_source(unit.folder)["problems"]}
    assert problems == {"b.png": "No such file or directory", "\\udcff.png": "its name is not UTF-8"}


def test_the_manifest_and_what_has_not_changed(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder / "a.txt").write_text("A")
    first, _ = _download(folder)
    entries = {entry.path: entry.size for entry in read_manifest(first.folder)}
    assert entries == {"a.png": len(png(1)), "a.txt": 1}
    again, _ = _download(folder)
    assert (again.folder, again.computed) == (first.folder, False)
    (folder / "a.txt").write_text("B")
    changed, pairs = _download(folder)
    assert changed.computed and pairs[0].captions == {"en": ["B"]}


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        _download(tmp_path / "nowhere")


def test_a_link_out_of_the_folder_is_no_caption(folder: Path):
    (folder.parent / "passwd").write_text("root:x:0:0")
    (folder / "s.png").write_bytes(png(1))
    (folder / "s.txt").symlink_to("../passwd")
    (folder / "t.png").symlink_to("/dev/zero")
    (folder / "t.txt").write_text("T")
    unit, pairs = _download(folder)
    assert [(pair.key, pair.captions, pair.unread) for pair in pairs] == [
        ("s", {}, None),
        ("t", {"en": ["T"]}, "t.png"),
    ]
    assert unit.record.failures == {"s.txt": "link_outside", "t.png": "link_outside"}
    unit, pairs = _download(folder, links="anywhere")
    assert pairs[0].captions == {"en": ["root:x:0:0"]}
    assert unit.record.failures == {"t.png": "not_a_file"}


@pytest.mark.parametrize("table", [None, "list.jsonl"])
def test_folders_are_no_categories_unless_the_source_says_so(folder: Path, table: str | None):
    (folder / "animals/birds/jay.png").write_bytes(png(1))
    (folder / "animals/fox.png").write_bytes(png(2))
    (folder / "animals/birds/jay.json").write_text(json.dumps({"caption": "A jay"}))
    (folder / "animals/fox.json").write_text(json.dumps({"caption": "A fox", "category": "mammals"}))
    rows = [
        {"image": "animals/birds/jay.png", "caption": "A jay"},
        {"image": "animals/fox.png", "caption": "A fox", "category": "mammals"},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for says, category in ((False, None), (True, "animals/birds")):
        _, pairs = _download(folder, table=table, folders_are_categories=says)
        found = {pair.key: pair.category for pair in pairs}
        assert found == {"animals/birds/jay": category, "animals/fox": "mammals"}


def test_linked_folders(folder: Path):
    (folder / "animals/birds/jay.png").write_bytes(png(1))
    (folder / "animals/birds/jay.txt").write_text("A jay")
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "fox.png").write_bytes(png(2))
    (folder.parent / "other" / "fox.txt").write_text("A fox")
    (folder / "more").symlink_to("../other")
    (folder / "cycle").symlink_to(".")
    unit, pairs = _download(folder, links="anywhere")
    assert [pair.key for pair in pairs] == ["animals/birds/jay", "more/fox"]
    assert pairs[1].image and pairs[1].image.read() == png(2)
    assert _unused(unit) == {("linked_folder", "folder"): 1}
    unit, pairs = _download(folder)
    assert [pair.key for pair in pairs] == ["animals/birds/jay"]
    assert unit.record.failures == {"more": "link_outside"}


def test_kinds_of_pictures_that_are_not_read(folder: Path):
    for name in ("a.heic", "b", "c.cls", "d.md"):
        (folder / name).write_bytes(b"x")
    for name in "abcd":
        (folder / f"{name}.txt").write_text(name)
    unit, pairs = _download(folder)
    assert {pair.key: pair.unread for pair in pairs} == {"a": "a.heic", "b": "b", "c": None, "d": None}
    assert sum(_unused(unit).values()) == 4


def test_sidecars_in_other_encodings(folder: Path):
    for name, content in {
        "bom": "Häher".encode("utf-8-sig"),
        "sixteen": "Häher".encode("utf-16"),
        "latin": "Häher".encode("cp1252"),
    }.items():
        (folder / f"{name}.png").write_bytes(png(1))
        (folder / f"{name}.txt").write_bytes(content)
    unit, pairs = _download(folder)
    assert {pair.key: pair.captions for pair in pairs} == {
        "bom": {"en": ["Häher"]},
        "sixteen": {"en": ["Häher"]},
        "latin": {},
    }
    (problem,) = read_source(unit.folder)["problems"]
    assert (problem["file"], problem["reason"]) == ("latin.txt", "damaged_text")


def test_200_000_lines_are_200_000_captions_in_seconds(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder / "a.txt").write_text("".join(f"caption {number}\n" for number in range(200_000)))
    begun = time.monotonic()
    _, pairs = _download(folder)
    assert time.monotonic() - begun < 20  # it took many minutes when each was looked for in a list
    assert len(pairs[0].captions["en"]) == 200_000


def test_img2dataset_s_own_files_are_no_captions(folder: Path):
    (folder / "00000").mkdir()
    (folder / "00000" / "000000001.jpg").write_bytes(png(1))
    (folder / "00000" / "000000001.txt").write_text("one")
    (folder / "00000_stats.json").write_text('{"count": 8}')
    (folder / "00000.parquet").write_bytes(b"PAR1")
    unit, pairs = _download(folder)
    assert [pair.key for pair in pairs] == ["00000/000000001"]
    assert _unused(unit) == {("side_file", ".json"): 1, ("side_file", ".parquet"): 1}


def test_files_too_large_to_be_held_are_not_read(folder: Path):
    for name in ("a.txt", "a.png"):
        with (folder / name).open("wb") as file:
            file.truncate(5 << 30)
    (folder / "b.png").write_bytes(png(1))
    unit, pairs = _download(folder)
    assert [pair.key for pair in pairs] == ["b"]
    assert unit.record.failures == {"a.txt": "unreadable_file", "a.png": "unreadable_file"}
    assert "more than the" in read_source(unit.folder)["problems"][0]["detail"]


def test_a_table_beside_the_folder_is_watched(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder.parent / "t.csv").write_text("image,caption\na.png,A\n")
    first, _ = _download(folder, table="../t.csv")
    (folder.parent / "t.csv").write_text("image,caption\na.png,B\n")
    changed, pairs = _download(folder, table="../t.csv")
    assert changed.folder != first.folder and pairs[0].captions == {"en": ["B"]}
    _, pairs = _download(folder, table=str(folder.parent / "t.csv"))
    assert pairs[0].captions == {"en": ["B"]}


def test_a_table_that_is_a_link_out_of_the_folder(folder: Path):
    (folder / "a.png").write_bytes(png(1))
    (folder.parent / "t.csv").write_text("image,caption\na.png,A\n")
    (folder / "t.csv").symlink_to("../t.csv")
    with pytest.raises(InputError, match=r"t\.csv: a link out of the folder"):
        _download(folder, table="t.csv")
    _, pairs = _download(folder, table="t.csv", links="anywhere")
    assert pairs[0].captions == {"en": ["A"]}
