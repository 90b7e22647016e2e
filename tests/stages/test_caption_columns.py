"""Columns that sources keep: captions that are there already, and scores, of every kind of source that has records."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.captions.table import read_captions
from flame_core.data.forgotten import ForgottenSample, new_salt, write_forgotten
from flame_core.data.shards import read_index
from flame_core.data.sources.kept_columns import read_column
from flame_core.data.sources.listing import KEPT_COLUMNS, read_keys
from flame_core.digest import file_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params, WebdatasetSource
from flame_core.stages import caption, download, ingest
from flame_core.verification import DIGESTS, write_digests
from tests.data.drawings import png
from tests.data.sources.test_webdataset import write_tar
from tests.stages.ingest.test_filters import reasons
from tests.stages.pipeline import pipeline_params

NUMBERS = range(16)
COLUMN = {"captioner": "column", "column": "re_caption"}


def record(number: int) -> dict[str, Any]:
    """What is known about a picture; one has no long caption."""
    return {
        "caption": f"drawing {number}",
        "re_caption": None if number == 3 else f"A long text about the drawing with the number {number}.",
        "similarity": number / 16,
        "empty": None,
    }


def write_shards(folder: Path) -> dict[str, Any]:
    for shard in range(2):
        own = [number for number in NUMBERS if number % 2 == shard]
        parts = [[(f"{n:03d}.png", png(n)), (f"{n:03d}.json", json.dumps(record(n)).encode())] for n in own]
        write_tar(folder / f"{shard:05d}.tar", [member for part in parts for member in part])
    return {"kind": "webdataset", "path": str(folder), "caption_field": "caption"}


def write_files(folder: Path) -> dict[str, Any]:
    for number in NUMBERS:
        (folder / f"{number:03d}.png").write_bytes(png(number))
        (folder / f"{number:03d}.json").write_text(json.dumps(record(number)))
    return {"kind": "folder", "path": str(folder)}


def write_table(folder: Path) -> dict[str, Any]:
    for number in NUMBERS:
        (folder / f"{number:03d}.png").write_bytes(png(number))
    rows = [{"image": f"{number:03d}.png", **record(number)} for number in NUMBERS]
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {"kind": "folder", "path": str(folder), "table": "captions.csv"}


def write_parquet(folder: Path) -> dict[str, Any]:
    rows = [{"image": {"bytes": png(number), "path": f"{number}.png"}, **record(number)} for number in NUMBERS]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return {"kind": "folder", "path": str(folder), "table": "pairs.parquet"}


KINDS = [write_shards, write_files, write_table, write_parquet]


@pytest.fixture(params=KINDS, ids=lambda write: write.__name__.removeprefix("write_"))
def source(request, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "source"
    folder.mkdir()
    return {**request.param(folder), "keep_columns": ["re_caption", "similarity"]}


def with_column(source: dict[str, Any], long: dict[str, Any] = COLUMN, **of_ingest: Any) -> Params:
    content = pipeline_params({"drawings": source}, **of_ingest).model_dump(mode="json")
    content["caption"] = {"short": None, "long": long, "gates": {"max_failed_fraction": 0.2}}
    return Params.model_validate(content)


def run(params: Params, root: Path) -> Layout:
    layout = Layout.find(root)
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    return layout


def captions(layout: Layout) -> dict[str, dict[str, str]]:
    """{sample: {kind: text}}."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(layout.captions.rglob("[0-9]*.parquet")):
        for each in read_captions(path):
            found.setdefault(each.key, {})[each.kind] = each.text
    return found


def test_a_column_of_the_source_becomes_captions_of_its_own_picture(source, tmp_path: Path):
    layout = run(with_column(source), tmp_path)
    found = captions(layout)
    assert len(found) == 16
    for texts in found.values():
        number = int(texts["raw"].removeprefix("drawing "))
        assert texts.get("long") == record(number)["re_caption"]
    row = next(row for row in read_captions(layout.captions / "train/00000.parquet") if row.kind == "long")
    assert (row.language, row.provenance) == ("en", "column:drawings/re_caption")
    manifest = json.loads((layout.captions / caption.MANIFEST).read_text())
    sha256 = {"drawings": file_sha256(layout.raw / "drawings" / KEPT_COLUMNS)}
    assert manifest["kinds"]["long"] == {**COLUMN, "language": "en", "sha256": sha256}


def test_a_column_filters_pairs(source, tmp_path: Path):
    rule = {"column": "similarity", "min": 0.5}
    layout = run(with_column(source, filters={"scores": [rule]}), tmp_path)
    assert reasons(layout) == {"filter_score_similarity": 8} and len(read_index(layout.shards)) == 8
    assert len(captions(layout)) == 8


def test_another_column_changes_no_shard(source, tmp_path: Path):
    layout = run(with_column({**source, "keep_columns": ["similarity"]}, {"captioner": "metadata"}), tmp_path)
    before = file_sha256(layout.shards / DIGESTS)
    run(with_column(source), tmp_path)
    assert file_sha256(layout.shards / DIGESTS) == before
    assert sum("long" in texts for texts in captions(layout).values()) == 15


def test_a_forgotten_pair_leaves_no_column(source, tmp_path: Path):
    layout = run(with_column(source), tmp_path)
    gone = read_keys(layout.raw / "drawings")[5]
    write_forgotten(layout.opt_out, [ForgottenSample(f"drawings/{gone}")], new_salt())
    run(with_column(source), tmp_path)
    keys = [key for key, _, _ in read_column(layout.raw / "drawings", "re_caption")]
    assert keys == read_keys(layout.raw / "drawings") and len(keys) == 15 and gone not in keys
    assert len(captions(layout)) == 15


def test_the_list_of_a_source_without_kept_columns_is_that_of_before():
    source = WebdatasetSource(kind="webdataset", path="x")
    assert "keep_columns" not in source.identity and "path" not in source.identity
    assert WebdatasetSource(kind="webdataset", path="x", keep_columns=["a"]).identity["keep_columns"] == ["a"]


def test_lists_and_other_languages_in_a_column(tmp_path: Path):
    folder = tmp_path / "source"
    folder.mkdir()
    source = write_files(folder)
    for number in NUMBERS:
        texts = {"de": [f"Bild {number}", f"Nummer {number}"], "en": f"Picture {number}"}
        (folder / f"{number:03d}.json").write_text(json.dumps({"caption": f"drawing {number}", "more": texts}))
    chosen = {"captioner": "column", "column": "more", "language": "de"}
    layout = run(with_column({**source, "keep_columns": ["more"]}, chosen), tmp_path)
    rows = [
        row for row in read_captions(layout.captions / "train/00000.parquet") if row.kind == "long" and row.row == 0
    ]
    number = captions(layout)[rows[0].key]["raw"].removeprefix("drawing ")
    assert [(row.text, row.language) for row in rows] == [(f"Bild {number}", "de"), (f"Nummer {number}", "de")]


def test_pictures_of_one_key_and_rows_about_one_picture(tmp_path: Path):
    folder = tmp_path / "source"
    folder.mkdir()
    source = {**write_table(folder), "keep_columns": ["re_caption"]}
    for name, number in {"bird.jpg": 20, "bird.png": 21}.items():
        (folder / name).write_bytes(png(number))
    more = (
        "bird.bmp,drawing 22,A long text about a picture that is not there.,0,\r\n"
        "bird.jpg,drawing 20, ,0,\r\n"
        "bird.jpg,drawing 20,A long text about the drawing with the number 20.,0,\r\n"
        "bird.png,drawing 21,A long text about the drawing with the number 21.,0,\r\n"
    )
    with (folder / "captions.csv").open("a", newline="") as file:
        file.write(more)
    found = captions(run(with_column(source), tmp_path))
    assert len(found) == 17
    assert found["drawings/bird"] == {
        "raw": "drawing 20",
        "long": "A long text about the drawing with the number 20.",
    }


def test_a_column_without_texts_and_one_that_is_not_there(source, tmp_path: Path):
    with pytest.raises(
        InputError, match=r"caption\.long: no sample has a text in 'en' in the column 'empty' that draw"
    ):
        run(with_column({**source, "keep_columns": ["empty"]}, {**COLUMN, "column": "empty"}), tmp_path)
    kept = tmp_path / "data/raw/drawings" / KEPT_COLUMNS
    kept.write_bytes(kept.read_bytes()[:-1] + b"0")
    with pytest.raises(InputError, match=r"caption\.long: .*columns\.parquet is damaged[^`]*`flame download`"):
        caption.run(with_column(source), Layout.find(tmp_path))
    kept.unlink()
    with pytest.raises(InputError, match=r"caption\.long: .*columns\.parquet is missing[^`]*`flame download`"):
        caption.run(with_column(source), Layout.find(tmp_path))
    write_digests(tmp_path / "data/raw")
    with pytest.raises(InputError, match=r"caption\.long: .*columns\.parquet is missing: run `flame download` first"):
        caption.run(with_column(source), Layout.find(tmp_path))


def test_a_table_without_a_kept_column_is_named(tmp_path: Path):
    folder = tmp_path / "source"
    folder.mkdir()
    source = {**write_table(folder), "keep_columns": ["recaption"]}
    with pytest.raises(InputError, match=r"captions\.csv has no column 'recaption'; it has caption, empty, image"):
        download.run(with_column(source, {"captioner": "metadata"}), Layout.find(tmp_path))


def test_the_column_of_the_pictures_is_not_kept(tmp_path: Path):
    with pytest.raises(ValueError, match="'image' is the column of the pictures"):
        with_column(
            {"kind": "folder", "path": str(tmp_path), "table": "t.csv", "keep_columns": ["image", "re_caption"]}
        )


def test_a_column_that_no_source_keeps_is_refused(source):
    with pytest.raises((ParamsError, ValueError), match=r"no source keeps 're_caption' \(kept: similarity\): add it"):
        with_column({**source, "keep_columns": ["similarity"]})
