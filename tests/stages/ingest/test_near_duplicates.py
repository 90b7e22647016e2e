"""`filters.near_duplicates`: one of a group of alike pictures is kept, placeholders go, and all are accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.data.ledger import read_ledger
from flame_core.layout import Layout
from tests.data.drawings import drawing, encoded
from tests.stages.ingest.shards import read_samples, read_units, run_ingest
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs

SECTION = {"near_duplicates": {"distance": 4, "placeholder_over": 5}}


def write(folder: Path, name: str, content: bytes, *captions: str) -> None:
    (folder / name).write_bytes(content)
    (folder / name).with_suffix(".txt").write_text("\n".join(captions))


def project(tmp_path: Path, **values: Any) -> tuple[Any, Layout]:
    pairs = tmp_path / "pairs"
    write_pairs(pairs, range(20))
    write(pairs, "a-small.jpg", encoded(drawing(100), "JPEG", quality=60), "a small one")
    write(pairs, "b-large.png", encoded(drawing(100).resize((192, 160))), "a large one")
    write(pairs, "c-words.jpg", encoded(drawing(100), "JPEG", quality=80), "this one has", "two captions")
    for number in range(6):  # the same "image not found", of the web's own making each time
        content = encoded(drawing(200), compress_level=number + 1)
        write(pairs, f"gone-{number}.png", content, f"words {number}")
    params = pipeline_params({"s": folder_source(pairs)}, val_fraction=0.01, filters=values)
    return params, Layout.find(tmp_path)


def test_one_of_a_group_is_kept_with_the_captions_of_all(tmp_path: Path):
    params, layout = project(tmp_path, **SECTION)
    run_ingest(params, layout)
    samples = read_samples(layout)["train"]
    assert "s/c-words" in samples and samples.keys().isdisjoint({"s/a-small", "s/b-large"})
    assert set(samples["s/c-words"]["captions"]["en"]) == {
        "this one has", "two captions", "a small one", "a large one"
    }  # fmt: skip
    assert not [key for key in samples if "gone" in key]
    rows = Counter((row.outcome, row.reason) for row in read_ledger(layout.shards))
    assert rows == {("merged", "near_duplicate"): 2, ("dropped", "placeholder"): 6}
    told = next(row.detail for row in read_ledger(layout.shards) if row.key == "s/a-small")
    assert told == "looks like s/c-words, which has its captions now, in a group of 3"
    kept = next(check for check in gates.read(layout.shards) if check.name == "kept_fraction")
    assert kept.value == 1.0


def test_with_equal_captions_the_larger_picture_is_kept(tmp_path: Path):
    params, layout = project(tmp_path, **SECTION)
    (tmp_path / "pairs/c-words.txt").write_text("only one")
    run_ingest(params.model_copy(update={"ingest": params.ingest.model_copy(update={"max_side": 192})}), layout)
    assert "s/b-large" in read_samples(layout)["train"]


def test_off_is_as_before_and_scans_are_found(tmp_path: Path):
    params, layout = project(tmp_path)
    run_ingest(params, layout)
    before, units = tree(layout.shards), read_units(layout)
    assert len(read_samples(layout)["train"]) == 29
    with_rule, _ = project(tmp_path, **SECTION)
    run_ingest(with_rule, layout)
    scans = {name for name in units if (layout.work / "ingest" / name / "scan.parquet").exists()}
    now = {name for name in read_units(layout) if (layout.work / "ingest" / name / "scan.parquet").exists()}
    assert scans == now
    run_ingest(params, layout)
    assert tree(layout.shards) == before
