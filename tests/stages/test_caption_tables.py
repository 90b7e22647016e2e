"""`flame caption` with captions that are there already, in tables."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.captions.table import read_captions
from flame_core.data.addresses.attempts import address_key
from flame_core.data.sources.keys import safe_key
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.stages import caption
from tests.captions.pictures import sample
from tests.stages.test_caption import checks, make_params, out, units, write_shards

ROWS = [("s/0", "A long text,\nin two lines."), ("s/2", 'Another "long" text.'), ("v/0", "ein Bär &amp; ein Hund")]
LONG = {"s/0": "A long text, in two lines.", "s/2": 'Another "long" text.', "v/0": "ein Bär & ein Hund"}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("FLAME_WORKERS", "1")
    settings.cache_clear()


@pytest.fixture
def layout(tmp_path) -> Layout:
    return write_shards(tmp_path, {
        "train/00000.tar": [sample("s/0"), sample("s/1")],
        "train/00001.tar": [sample("s/2")],
        "val/00000.tar": [sample("v/0")],
    })  # fmt: skip


def of_table(sources: dict[str, Any] | None = None, **changes: Any) -> Params:
    chosen = {"captioner": "table", "path": "captions.csv", **changes}
    return make_params(sources, short=None, long=chosen, gates={"max_failed_fraction": 0.5})


def write_csv(path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("key", "caption")) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_as(kind: str, path: Path, rows: Sequence[tuple[str, str]]) -> None:
    match kind:
        case ".csv" | ".txt":
            write_csv(path, rows)
        case ".json":
            path.write_text(json.dumps([{"key": key, "caption": text} for key, text in rows]))
        case ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, delimiter="\t").writerows([("key", "caption"), *rows])
        case ".jsonl":
            path.write_text("".join(json.dumps({"key": key, "caption": [text]}) + "\n" for key, text in rows))
        case ".parquet":
            pq.write_table(pa.table({"key": [key for key, _ in rows], "caption": [text for _, text in rows]}), path)


def written(layout: Layout, kind: str = "long") -> dict[str, str]:
    return {
        each.key: each.text
        for path in sorted(layout.captions.rglob("[0-9]*.parquet"))
        for each in read_captions(path)
        if each.kind == kind
    }


@pytest.fixture
def told(monkeypatch) -> dict[str, Any]:
    """What the stage says it did."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(caption, "facts", lambda _, given: values.update(given))
    return values


def rows_of(told: dict[str, Any]) -> dict[str, int]:
    return {name.removeprefix("long table: "): n for name, n in told.items() if name.startswith("long table: ")}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".parquet", ".json", ".txt"])
def test_texts_of_a_table_become_captions(layout, kind, packed):
    path = layout.root / f"recaptions{kind}"
    write_as(kind, path, ROWS)
    if packed:
        packed_path = path.with_name(f"{path.name}.gz")
        packed_path.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        path = packed_path
    caption.run(of_table(path=path.name), layout)
    assert written(layout) == LONG
    (row,) = [row for row in read_captions(layout.captions / "train/00001.parquet") if row.kind == "long"]
    assert (row.row, row.language, row.provenance) == (0, "en", f"table:{path.name}/caption")
    manifest = json.loads((layout.captions / caption.MANIFEST).read_text())
    assert manifest["kinds"]["long"] == {
        "captioner": "table", "table": path.name, "caption_column": "caption", "language": "en",
        "sha256": {path.name: file_sha256(path)},
    }  # fmt: skip
    assert checks(layout)["long_failed"].value == 0.25 and checks(layout)["long_failed"].keys == ["s/1"]


def test_a_folder_of_tables_is_read_in_the_order_of_their_names_and_all_texts_are_kept(layout, told):
    folder = layout.root / "recaptions"
    folder.mkdir()
    write_csv(folder / "b.csv", [("s/0", "third"), ("s/1", "fourth"), ("s/0", "first")])
    write_as(".parquet", folder / "a.parquet", [("s/0", "  "), ("s/0", "first"), ("s/0", "second"), ("of/nobody", "x")])
    (folder / "README.md").write_text("about them")
    caption.run(of_table(path="recaptions", max_caption_chars=5), layout)
    rows = [row for row in read_captions(layout.captions / "train/00000.parquet") if row.kind == "long"]
    assert [(row.row, row.text) for row in rows] == [(0, "first"), (0, "secon"), (0, "third"), (1, "fourt")]
    assert rows_of(told) == {
        "rows": 7, "texts": 4, "texts cut": 2, "unmatched rows": 1, "rows without a text": 1, "duplicate texts": 1,
        "samples with a text": 2,
    }  # fmt: skip


def test_other_columns_another_language_and_both_kinds_of_one_table(layout):
    table = layout.root / "mine.jsonl"
    rows = [{"id": "s/0", "brief": {"en": "a bear", "de": ["ein Bär"]}, "detailed": "Ein Bär auf einer Wiese."}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = {"captioner": "table", "path": "mine.jsonl", "match_column": "id", "language": "de"}
    kinds = {kind: {**chosen, "caption_column": name} for kind, name in (("short", "brief"), ("long", "detailed"))}
    caption.run(make_params(**kinds, gates={"max_failed_fraction": 1.0}), layout)
    assert written(layout, "short") == {"s/0": "ein Bär"} and written(layout) == {"s/0": "Ein Bär auf einer Wiese."}
    rows = [row for row in read_captions(layout.captions / "train/00000.parquet") if row.kind != "raw"]
    assert {row.language for row in rows} == {"de"}


ADDRESS = "http://a.org/1.jpg?x=ä"


@pytest.mark.parametrize(
    ("match", "kind", "key", "name"),
    [
        ("url", "urls", address_key(ADDRESS), f" {ADDRESS}"),
        ("image", "folder", "birds/a big bird", "birds/a big bird.png"),
        ("image", "folder", "birds/a big bird", "birds/../birds\\a big bird.PNG"),
        ("image", "folder", "birds/a big bird", "{place}/birds/a big bird.png"),
        ("image", "folder", "c", "./c.jpeg"),
        ("image", "folder", "a.b", "a.b"),
        ("image", "folder", "B\u00e4r", "Ba\u0308r.png"),
        ("image", "folder", "Ba\u0308r", "B\u00e4r.png"),
        ("image", "folder", " led", " led.png"),
        ("image", "webdataset", "00000/000000012", "00000/000000012.jpg"),
        ("image", "hub", "00000/000000012", "00000/000000012"),
        ("sha256", "webdataset", "0/a", "AB" * 32),
    ],
)
def test_rows_may_call_samples_otherwise(tmp_path, match, kind, key, name):
    key = safe_key(f"mine/{safe_key(key)}")
    samples = [sample(key, sha256="ab" * 32, source="mine"), sample("mine/other")]
    layout = write_shards(tmp_path, {"train/00000.tar": samples, "val/00000.tar": [sample("v/0")]})
    named = name.replace("{place}", str(tmp_path / "x"))
    rows = [{"name": "not/this.png", "caption": "lost"}, {"name": named, "caption": "found"}]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = {"repo": "a/b", "revision": "0" * 40} if kind == "hub" else {"path": "x"}
    params = of_table({"mine": {"kind": kind, **place}}, match=match, match_column="name", path="captions.jsonl")
    caption.run(params, layout)
    assert written(layout) == {key: "found"}


def test_a_name_without_its_picture_means_no_other_picture(tmp_path):
    samples = [sample(safe_key("a/fig")), sample(safe_key(f"a/{safe_key('v1.2')}"))]
    layout = write_shards(tmp_path, {"train/00000.tar": samples, "val/00000.tar": [sample("v/0")]})
    rows = [("fig.3", "of a picture that was dropped"), ("fig.png", "right"), ("v1.3", "dropped"), ("v1.2", "right")]
    write_csv(tmp_path / "captions.csv", rows, ("image", "caption"))
    caption.run(of_table({"a": {"kind": "folder", "path": "x"}}, match="image"), layout)
    assert set(written(layout).values()) == {"right"} and len(written(layout)) == 2


def test_sources_with_files_of_the_same_names_have_a_table_each(tmp_path):
    samples = [sample(f"{source}/0001", source=source) for source in ("a", "b")]
    layout = write_shards(tmp_path, {"train/00000.tar": samples, "val/00000.tar": [sample("v/0")]})
    for source in ("a", "b"):
        write_csv(tmp_path / f"{source}.csv", [("0001.png", f"of {source}")], ("image", "caption"))
    sources = {name: {"kind": "folder", "path": name} for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"say which table is whose, \{a: <its table>, b: <its table>\}"):
        of_table(sources, match="image", path="a.csv")
    caption.run(of_table(sources, match="image", path={"a": "a.csv", "b": "b.csv"}), layout)
    rows = [row for row in read_captions(layout.captions / "train/00000.parquet") if row.kind == "long"]
    assert [(row.key, row.text, row.provenance) for row in rows] == [
        ("a/0001", "of a", "table:a.csv/caption"),
        ("b/0001", "of b", "table:b.csv/caption"),
    ]
    kinds = json.loads((layout.captions / caption.MANIFEST).read_text())["kinds"]
    assert kinds["long"]["tables"] == {"a": "a.csv", "b": "b.csv"}
    assert kinds["long"]["sha256"].keys() == {"a/a.csv", "b/b.csv"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": {"mine": "a.csv"}, "match": "image"}, "mine is no source that has such samples; these have: test"),
        ({"path": {"test": "a.csv"}}, "match: key says which sample it is, of any source: name one table or folder"),
        ({"path": "s3://bucket/a.csv"}, "tables of captions are on this machine: copy them from that address"),
        ({"path": {}}, "at least 1 item"),
        ({"caption_column": "key"}, r"'key' is the column that names the sample \(`match`, `match_column`\)"),
        ({"match_column": ""}, "at least 1 character"),
        ({"match": "url"}, "the samples of a source of kind urls, and there is none; name them by key or sha256"),
    ],
)
def test_params_that_do_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        of_table(**changes)


@pytest.mark.parametrize(("language", "written_as"), [("DE", "de"), ("German", "de"), ("zh_CN", "zh-cn"), ("de", "DE")])
def test_languages_in_any_spelling(layout, language, written_as):
    row = {"key": "s/0", "caption": {"en": "a bear", written_as: "ein Bär"}}
    (layout.root / "captions.jsonl").write_text(json.dumps(row) + "\n")
    params = make_params(
        short=None,
        long={"captioner": "table", "path": "captions.jsonl", "language": language},
        gates={"max_failed_fraction": 1.0},
    )
    caption.run(params, layout)
    (found,) = [each for each in read_captions(layout.captions / "train/00000.parquet") if each.kind == "long"]
    assert (found.text, found.language) == ("ein Bär", {"zh_CN": "zh_CN"}.get(language, "de"))


def test_columns_of_bytes_and_of_whole_numbers(tmp_path):
    samples = [sample("7"), sample("8")]
    layout = write_shards(tmp_path, {"train/00000.tar": samples, "val/00000.tar": [sample("v/0")]})
    table = {"key": pa.array([7, 8], pa.int64()), "caption": pa.array([b"seven", None], pa.binary())}
    pq.write_table(pa.table(table), tmp_path / "captions.parquet")
    caption.run(of_table(path="captions.parquet"), layout)
    assert written(layout) == {"7": "seven"}


def test_a_part_of_a_folder_may_be_empty(layout):
    folder = layout.root / "tables"
    folder.mkdir()
    write_csv(folder / "a.csv", ROWS)
    (folder / "b.jsonl").touch()
    caption.run(of_table(path="tables"), layout)
    assert written(layout) == LONG


def test_hidden_files_are_no_tables_and_a_name_that_is_no_text_is_one(layout):
    folder = layout.root / "tables"
    folder.mkdir()
    write_csv(folder / "a.csv", ROWS)
    (folder / "._a.csv").write_bytes(b"\0\5\x16\7")
    (folder / "a.csv").rename(folder / os.fsdecode(b"a\xff.csv"))
    caption.run(of_table(path="tables"), layout)
    assert written(layout) == LONG


def test_a_longer_table_computes_only_the_shards_whose_texts_changed(layout):
    write_csv(layout.root / "captions.csv", ROWS[:2])
    caption.run(of_table(), layout)
    first, before = units(layout), out(layout)
    caption.run(of_table(), layout)
    assert units(layout) == first and out(layout) == before
    write_csv(layout.root / "captions.csv", [("other/0", "of no sample"), *ROWS])
    caption.run(of_table(), layout)
    assert written(layout) == LONG
    assert len(units(layout).items() - first.items()) == 1 and first.items() <= units(layout).items()


def test_a_table_elsewhere_with_the_same_rows_gives_the_same_captions(layout, tmp_path):
    write_csv(layout.root / "captions.csv", ROWS)
    caption.run(of_table(), layout)
    before = out(layout)
    (tmp_path / "elsewhere").mkdir()
    (layout.root / "captions.csv").rename(tmp_path / "elsewhere/captions.csv")
    caption.run(of_table(path=str(tmp_path / "elsewhere/captions.csv")), layout)
    assert out(layout) == before


def test_rows_that_cannot_be_read_cost_themselves_and_are_named(layout, caplog, told):
    content = b"key,caption\ns/0,good\ns/1,\xff\n,nobody's\ns/2,a,b\nv/0,good too\n"
    (layout.root / "captions.csv").write_bytes(content)
    caption.run(of_table(), layout)
    assert written(layout) == {"s/0": "good", "v/0": "good too"}
    (said,) = caplog.messages[:1]
    assert said.startswith(
        "caption.long: rows that cannot be read: captions.csv: row 2 (line 3) is not utf-8; `encoding`"
    )
    assert "has no text in the column 'key'" in said
    assert rows_of(told) == {"rows": 2, "texts": 2, "samples with a text": 2, "unreadable rows": 3}


def a_csv(path: Path) -> None:
    write_csv(path, ROWS)


@pytest.mark.parametrize(
    ("make", "changes", "said"),
    [
        (a_csv, {"path": "caption.csv"}, r"caption\.csv does not exist; `path` must name a table of captions"),
        (a_csv, {"path": "data"}, r"data holds no table of captions \(\.csv"),
        (a_csv, {"caption_column": "text"}, r"captions\.csv has no column 'text'; it has caption, key"),
        (lambda path: write_csv(path, []), {}, "has no row that can be read"),
        (lambda path: path.write_text("key,caption\n,x\n"), {}, "has no row that can be read: captions.csv: row 1"),
        (
            lambda path: write_csv(path, [("a", "x")]),
            {},
            "none of the 1 rows of .*, whose keys are like s/0: the first has 'a' in the column 'key'; see",
        ),
        (
            lambda path: path.with_suffix(".jsonl").write_text('{"key": "s/0"}\n{"key": "s/1"}\n'),
            {"path": "captions.jsonl"},
            "has no column 'caption'; it has key",
        ),
        (
            lambda path: path.with_name("captions.csv.gz").write_bytes(gzip.compress(b"id,caption\ns/0,x\n")),
            {"path": "captions.csv.gz"},
            r"captions\.csv\.gz has no column 'key'; it has caption, id",
        ),
        (os.mkfifo, {}, "captions.csv is neither a file nor a folder; `path` must name a table of captions"),
        (lambda path: path.symlink_to("/proc/self/mem"), {}, "captions.csv cannot be read: Input/output error"),
        (lambda path: write_csv(path, [("s/0", " ")]), {}, "no text in 'en' for any sample: see `caption_column`"),
        (
            lambda path: write_csv(path, [("b.png", "x")]),
            {"match": "image", "match_column": "key"},
            "taken for a file below `path` of a source .*; see",
        ),
    ],
)
def test_tables_without_a_text_for_any_sample(layout, make, changes, said):
    make(layout.root / "captions.csv")
    with pytest.raises(InputError, match=rf"^caption\.long: .*{said}"):
        caption.run(of_table(**changes), layout)
    assert not layout.captions.exists()
