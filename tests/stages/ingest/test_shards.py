from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from flame_core import gates
from flame_core.data.ledger import read_ledger
from flame_core.data.shards import PictureReader, read_index, read_shard, shard_names
from flame_core.layout import Layout
from flame_core.settings import settings
from tests.data.drawings import drawing, encoded, png
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.stages.ingest.shards import read_dropped, read_samples, read_units, run_ingest, write_pair
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs


def test_pairs_become_shards_with_an_index(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a" / "things", range(40))
    params = pipeline_params({"src": folder_source(tmp_path / "a", licence="CC0", folders_are_categories=True)})
    run_ingest(params, layout)
    gates.require(layout.shards)
    samples = read_samples(layout)
    rows = read_index(layout.shards)
    assert len(rows) == 40 and {row.key for row in rows} == samples["train"].keys() | samples["val"].keys()
    reader = PictureReader(layout.shards)
    for split, metas in samples.items():
        assert list(metas) == sorted(metas)
        for row in read_index(layout.shards, split):  # type: ignore[arg-type]
            meta = metas[row.key]
            picture = Image.open(io.BytesIO(reader.jpeg(row)))
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert picture.size == (row.width, row.height) == (meta["width"], meta["height"]) == (64, 53)
            assert (meta["sha256"], meta["source"], meta["licence"]) == (row.sha256, "src", "CC0")
            assert (meta["category"], row.captions) == ("things", 1)
    for name in shard_names(layout.shards, "train"):
        in_shard = [sample.key for sample in read_shard(layout.shards / name)]
        assert in_shard == [row.key for row in rows if row.shard == name]
        assert [row.row for row in rows if row.shard == name] == list(range(len(in_shard)))
    assert read_ledger(layout.shards) == []
    assert 4 <= len(samples["val"]) <= 18


def test_bad_samples_are_dropped_with_their_reasons(layout: Layout, tmp_path: Path):
    folder = tmp_path / "a"
    write_pairs(folder, range(10))
    bad = {
        "empty": (b"", "A", "image_empty"),
        "text": (b"no picture at all", "A", "image_unreadable"),
        "cut": (png(900)[:400], "A", "image_damaged"),
        "large": (encoded(Image.new("1", (3000, 400))), "A", "image_too_large"),
        "silent": (png(901), " \n\x00\n", "no_caption"),
        "bomb": (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">' + b"<g>" * 99_999,
            "A",
            "image_unreadable",
        ),
    }
    for name, (picture, text, _) in bad.items():
        (folder / f"{name}.png").write_bytes(picture)
        (folder / f"{name}.txt").write_text(text)
    (folder / "alone.txt").write_text("no picture")
    (folder / "0003.jpg").write_bytes(encoded(drawing(902), "JPEG"))  # beside 0003.png
    run_ingest(pipeline_params({"s": folder_source(folder)}, max_pixels=1_000_000), layout)
    expected = {f"s/{name}": reason for name, (_, _, reason) in bad.items()}
    assert read_dropped(layout) == {**expected, "s/alone": "image_missing", "s/0003": "duplicate_key"}
    assert all(entry.detail and entry.source == "s" for entry in read_ledger(layout.shards))
    assert len(read_index(layout.shards)) == 10
    kept = next(check for check in gates.read(layout.shards) if check.name == "kept_fraction")
    assert kept.value == round(10 / 18, 4)


def test_awkward_captions(layout: Layout, tmp_path: Path):
    texts = {
        "long": "x" * 100_000,
        "quotes": "She said \"hi\", 'yes' \\ and left",
        "control": "a\x00b\x1b[31mc\td",
        "template": 'Image description : "{caption}" . After thinking {bos} <|endoftext|> %s {0}',
        "scripts": "青蛙 ضفدع मेंढक e\u0301",
    }
    write_pairs(tmp_path / "a", range(6))
    for number, (name, text) in enumerate(texts.items()):
        write_pair(tmp_path / "a", name, png(800 + number), captions=[text, "  "])
    run_ingest(pipeline_params({"s": folder_source(tmp_path / "a")}, max_caption_chars=500), layout)
    metas = {key: meta for split in read_samples(layout).values() for key, meta in split.items()}
    stored = {name: metas[f"s/{name}"]["captions"]["en"] for name in texts}
    assert stored == {
        **{name: [text] for name, text in texts.items()},
        "long": ["x" * 500],
        "control": ["a b [31mc d"],
        "scripts": ["青蛙 ضفدع मेंढक é"],
    }


def test_workers_and_places_do_not_matter(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pairs(tmp_path / "a", range(150))
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "0.tar", members_of(*range(300, 312)))
    params = pipeline_params(
        {"a": folder_source(tmp_path / "a"), "w": {"kind": "webdataset", "path": str(tmp_path / "w")}}
    )
    run_ingest(params, layout)
    expected = tree(layout.shards)
    assert len(shard_names(layout.shards, "train")) > 5
    (tmp_path / "other" / "place").mkdir(parents=True)
    other = Layout.find(tmp_path / "other" / "place")
    monkeypatch.setenv("FLAME_WORKERS", "2")
    settings.cache_clear()
    run_ingest(params, other)
    assert tree(other.shards) == expected


def test_added_pairs_change_only_the_shards_they_fall_in(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(0, 300, 2))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    run_ingest(params, layout)
    shards, units = tree(layout.shards), read_units(layout)
    write_pairs(tmp_path / "a", range(151, 152))
    run_ingest(params, layout)
    before = {content for name, content in shards.items() if name.endswith(".tar")}
    after = {content for name, content in tree(layout.shards).items() if name.endswith(".tar")}
    assert 1 <= len(after - before) <= 3 and len(after) > 12
    new = read_units(layout).keys() - units.keys()
    assert 2 <= len(new) <= 6  # scans and shards
    assert {digest: made for digest, made in read_units(layout).items() if digest in units} == units


def test_fitting_jpegs_keep_their_bytes(layout: Layout, tmp_path: Path):
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "0.tar", members_of(*range(12)))
    run_ingest(pipeline_params({"s": {"kind": "webdataset", "path": str(tmp_path / "w")}}, max_side=96), layout)
    reader = PictureReader(layout.shards)
    stored = {row.key: reader.jpeg(row) for row in read_index(layout.shards)}
    assert stored == {f"s/0/{number:06d}": encoded(drawing(number), "JPEG") for number in range(12)}
