"""What is seen in the data before anything is computed, and that ingest then finds the same."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import yaml

from flame_core.data.shards import read_index
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.preflight import data_look
from flame_core.preflight.data_fit import data_warnings
from flame_core.preflight.data_look import DataLook, ingest_sizes_of, look
from flame_core.stages import download, ingest
from tests.data.drawings import png
from tests.stages.pipeline import folder_source, pipeline_params

AUTO = {"val_fraction": "auto", "shard_samples": "auto"}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("FLAME_WORKERS", "1")
    (tmp_path / "project").mkdir()
    return Layout.find(tmp_path / "project")


def write_table(folder: Path, pictures: int, *more: tuple[str, str], language: str | None = None) -> None:
    """Pictures, and a table with a caption of each and the rows `more`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", *([] if language is None else ["language"])])
        for number in range(pictures):
            (folder / f"{number:03}.png").write_bytes(png(number))
            rows.writerow([f"{number:03}.png", f"drawing number {number}", *([] if language is None else [language])])
        rows.writerows(more)


def table_params(folder: Path, **values: object) -> Params:
    return pipeline_params({"mine": folder_source(folder, table="captions.csv")}, **{**AUTO, **values})


def said(params: Params, layout: Layout, seen: DataLook) -> dict[str, str]:
    return {".".join(fault.key): fault.message for fault in data_warnings(params, layout, seen)}


def test_a_table_is_looked_at_before_it_is_downloaded_as_ingest_will_see_it(layout: Layout, tmp_path: Path):
    folder = tmp_path / "pictures"
    write_table(folder, 64, ("Bird.jpg", "a bird"), ("012.PNG", "a frog"))
    (folder / "alone.png").write_bytes(png(900))
    params = table_params(folder)
    before = look(params, layout)
    assert (before.pairs, before.exact, before.about, before.about_pairs) == (67, False, "about ", "")
    assert before.languages == {"en": 66} and not before.held_out
    assert before.sources["mine"].silent == ["alone"] and len(before.sources["mine"].lost) == 2
    assert ingest_sizes_of(params, layout, before) == {"val_fraction": 0.3, "shard_samples": 16}
    lost, silent = (fault.message for fault in data_warnings(params, layout, before) if fault.key[0] == "sources")
    assert lost.startswith("2 of 67 pairs have a caption and no picture, and are left out: the table names '012.PNG'")
    assert "the nearest is '012.png'; the table names 'Bird.jpg'" in lost
    assert silent == "1 of 67 pairs have no caption, and are left out: alone"
    assert not (layout.root / "data").exists()  # nothing was written

    download.run(params, layout)
    listed = look(params, layout)
    assert (listed.pairs, listed.train, listed.val) == (before.pairs, before.train, before.val)
    ingest.run(params, layout)
    after = look(params, layout)
    assert after.exact and (after.train, after.val) == (before.train, before.val)  # no picture was like another
    assert after.train == len(read_index(layout.shards, "train"))
    assert ingest_sizes_of(params, layout, after) == {"val_fraction": 0.3, "shard_samples": 16}


def test_pairs_whose_split_the_table_fixes_stay_there(layout: Layout, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = ["image,caption,split"]
    for number in range(20):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(f"{number}.png,drawing {number},{'val' if number < 6 else 'train' if number < 18 else 'test'}")
    (folder / "captions.csv").write_text("\n".join(lines))
    seen = look(table_params(folder), layout)
    assert (seen.pairs, seen.train, seen.val) == (20, 12, 6)


def test_languages_of_the_captions_are_known_before_there_are_any(layout: Layout, tmp_path: Path):
    write_table(tmp_path / "pictures", 20, language="de")
    params = table_params(tmp_path / "pictures")
    seen = look(params, layout)
    assert seen.languages == {"de": 20}
    found = said(params, layout, seen)
    assert found["evaluate.train_language"].startswith("no caption is in 'en': nothing would be trained")


def test_captions_that_are_all_the_same_leave_one_split_empty(layout: Layout, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text("a bird")
    params = pipeline_params({"mine": folder_source(folder)}, **AUTO)
    seen = look(params, layout)
    assert (seen.train, seen.val) == (30, 0)
    assert said(params, layout, seen)["ingest.val_fraction"] == (
        "about 0 held-out pictures, and ingest.gates.min_val_samples is 2: hold out more, or add pairs; pairs with "
        "equal captions are on one side"
    )


def test_of_a_large_folder_only_the_pictures_are_counted(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_table(tmp_path / "pictures", 30)
    monkeypatch.setattr(data_look, "_MOST_FILES", 20)
    seen = look(table_params(tmp_path / "pictures", val_fraction=0.2), layout)
    assert (seen.pairs, seen.train, seen.val, seen.languages) == (30, 24, 6, None)
    assert seen.about_pairs == "about "


def test_data_of_other_sources_are_not_taken_for_these(layout: Layout, tmp_path: Path):
    """After `sources` has changed, shards and lists in the project are still those of the old ones."""
    write_table(tmp_path / "old", 40)
    write_table(tmp_path / "new", 20)
    old, new = table_params(tmp_path / "old"), table_params(tmp_path / "new")
    download.run(old, layout)
    ingest.run(old, layout)
    of_file = {name: getattr(old, name) for name in ("sources", "ingest")}
    content = {
        "sources": {name: source.model_dump() for name, source in of_file["sources"].items()},
        "ingest": old.ingest.model_dump(),
    }
    stages = {stage: {"params": {"params.yaml": content}} for stage in ("download", "ingest")}
    (layout.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    assert (look(old, layout).pairs, look(old, layout).exact) == (40, True)
    seen = look(new, layout)
    assert (seen.pairs, seen.exact) == (20, False)
    other = table_params(tmp_path / "old", val_fraction=0.5)
    assert (look(other, layout).pairs, look(other, layout).exact) == (40, False)  # listed, and not split like that


def test_a_source_that_cannot_be_read_is_unknown(layout: Layout, tmp_path: Path):
    write_table(tmp_path / "pictures", 4)
    (tmp_path / "pictures/captions.csv").write_text("file,text\n")
    params = table_params(tmp_path / "pictures")
    seen = look(params, layout)
    assert (seen.pairs, seen.train, seen.languages) == (None, None, None) and data_warnings(params, layout, seen) == []
    assert seen.refused["mine"].endswith("captions.csv has no column 'image'; it has file, text (separated by a comma)")
    shutil.rmtree(tmp_path / "pictures")
    assert look(params, layout).pairs is None and "is not a folder" in look(params, layout).refused["mine"]


@pytest.mark.parametrize(
    ("table", "content", "why"),
    [
        ("captions.csv", "image;text\na.png;a bird\n", "has no column 'caption'; it has image, text"),
        ("captions.csv", "\0\x01image,caption", "looks like UTF-16 without a byte order mark"),
        ("captions.parquet", "PAR1", "is not a readable parquet file"),
    ],
)
def test_of_a_large_folder_the_table_s_beginning_is_read(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, content: str, why: str
):
    write_table(tmp_path / "pictures", 4)
    monkeypatch.setattr(data_look, "_MOST_FILES", 2)
    (tmp_path / "pictures" / table).write_text(content)
    params = pipeline_params({"mine": folder_source(tmp_path / "pictures", table=table)}, **AUTO)
    seen = look(params, layout)
    assert seen.pairs is None and why in seen.refused["mine"]


def test_a_list_that_is_damaged_is_made_anew(layout: Layout, tmp_path: Path):
    write_table(tmp_path / "pictures", 20)
    params = table_params(tmp_path / "pictures")
    download.run(params, layout)
    next((layout.raw / "mine").glob("*.parquet")).write_bytes(b"PAR1")
    seen = look(params, layout)
    assert seen.refused == {} and seen.pairs is None
