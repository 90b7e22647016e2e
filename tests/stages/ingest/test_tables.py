from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.captions.appearance import measure_jpeg
from flame_core.captions.metadata import MetadataCaptioner
from flame_core.data.ledger import read_ledger
from flame_core.data.shards import read_shard, shard_names
from flame_core.layout import Layout
from flame_core.stages import download, ingest
from tests.data.drawings import png
from tests.stages.ingest.shards import read_samples, run_ingest
from tests.stages.pipeline import folder_source, pipeline_params

WORDS = ["train", "validation", "test", "Val", "restval", None, 3, "held out"]


def test_words_for_splits_map_or_leave_out_by_name(layout: Layout, tmp_path: Path):
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(32):
        (folder / f"{number:02d}.png").write_bytes(png(number))
    rows = [{"image": f"{n:02d}.png", "caption": f"drawing {n}", "split": WORDS[n % 8]} for n in range(32)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_ingest(pipeline_params({"s": folder_source(folder, table="t.jsonl")}), layout)
    splits = {key: split for split, samples in read_samples(layout).items() for key in samples}
    by_word = {word: {splits.get(f"s/{n:02d}") for n in range(32) if WORDS[n % 8] == word} for word in WORDS}
    assert by_word.pop(None) <= {"train", "val"}
    assert by_word == {
        "train": {"train"},
        "restval": {"train"},
        "validation": {"val"},
        "Val": {"val"},
        "test": {None},
        "held out": {None},
        3: {None},
    }
    entries = read_ledger(layout.shards)
    assert {entry.key for entry in entries} == {f"s/{n:02d}" for n in range(32) if n % 8 in (2, 6, 7)}
    assert Counter((entry.reason, entry.detail.split("'")[1]) for entry in entries) == {
        ("other_split", "test"): 4,
        ("other_split", "3"): 4,
        ("other_split", "held out"): 4,
    }


def test_pictures_within_a_table_become_samples_without_it(layout: Layout, tmp_path: Path):
    folder = tmp_path / "a"
    folder.mkdir()
    rows = [
        {"image": {"bytes": png(n), "path": f"{n}.png"}, "caption": [f"drawing {n}", f"no. {n}"]} for n in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    params = pipeline_params({"s": folder_source(folder, table="t.parquet")})
    download.run(params, layout)
    shutil.rmtree(folder)
    ingest.run(params, layout)
    samples = {key: meta for split in read_samples(layout).values() for key, meta in split.items()}
    assert sorted(samples) == sorted(f"s/{n}" for n in range(20))
    assert samples["s/7"]["captions"]["en"][0] == "drawing 7"
    assert read_ledger(layout.shards) == []


def test_character_references_do_not_cut_what_is_made_of_captions(layout: Layout, tmp_path: Path):
    folder = tmp_path / "a"
    folder.mkdir()
    texts = ["A dog &amp; a cat on a sofa", "Tom&#39;s caf&eacute; &amp;amp; bar"] + [f"drawing {n}" for n in range(20)]
    rows = ["image,caption,title,keywords"]
    for number, text in enumerate(texts):
        (folder / f"{number:02d}.png").write_bytes(png(number))
        rows.append(f'{number:02d}.png,{text},Rock &amp; Roll,"R&amp;B, soul"')
    (folder / "t.csv").write_text("\n".join(rows))
    run_ingest(pipeline_params({"s": folder_source(folder, table="t.csv")}), layout)
    made = {
        sample.key: (sample.meta, MetadataCaptioner("short", measure_jpeg).captions([sample])[0])
        for split in ("train", "val")
        for name in shard_names(layout.shards, split)
        for sample in read_shard(layout.shards / name)
    }
    meta, short = made["s/00"]
    assert (meta["title"], meta["keywords"]) == ("Rock & Roll", ["R&B", "soul"])
    assert meta["captions"] == {"en": ["A dog & a cat on a sofa"]}
    assert str(short).startswith("A dog & a cat on a sofa, ")
    assert str(made["s/01"][1]).startswith("Tom's café & bar, ")
