from __future__ import annotations

import io
import json
import random
import resource
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flame_core import gates
from flame_core.data.captions_text import same_text
from flame_core.data.ledger import Entry, read_ledger
from flame_core.data.shards import PictureReader, read_index, read_shard, shard_names
from flame_core.errors import GateError, InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.stages import download, ingest
from tests.data.drawings import drawing, encoded, png
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.stages.pipeline import folder_source, pipeline_params, start_stage, tree, write_pairs


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAME_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "project").mkdir()
    return Layout.find(tmp_path / "project")


def _run(params: Params, layout: Layout) -> None:
    download.run(params, layout)
    ingest.run(params, layout)


def _samples(layout: Layout) -> dict[str, dict[str, dict[str, Any]]]:
    """{split: {key: meta}} of all shards."""
    return {
        split: {
            sample.key: sample.meta
            for name in shard_names(layout.shards, split)
            for sample in read_shard(layout.shards / name)
        }
        for split in ("train", "val")
    }


def _dropped(layout: Layout) -> dict[str, str]:
    return {entry.key: entry.reason for entry in read_ledger(layout.shards) if entry.outcome == "dropped"}


def _failed(layout: Layout) -> set[str]:
    return {check.name for check in gates.read(layout.shards) if not check.passed}


def _units(layout: Layout) -> dict[str, int]:
    """{digest: when it was made} of the units in the work cache."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (layout.work / "ingest").glob("[!.]*/ledger.json")}


def _pair(folder: Path, name: str, picture: bytes, **record: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(picture)
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_pairs_become_shards_with_an_index(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a" / "things", range(40))
    params = pipeline_params({"src": folder_source(tmp_path / "a", licence="CC0")})
    _run(params, layout)
    gates.require(layout.shards)
    samples = _samples(layout)
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
    _run(pipeline_params({"s": folder_source(folder)}, max_pixels=1_000_000), layout)
    expected = {f"s/{name}": reason for name, (_, _, reason) in bad.items()}
    assert _dropped(layout) == {**expected, "s/alone": "image_missing", "s/0003": "duplicate_key"}
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
        _pair(tmp_path / "a", name, png(800 + number), captions=[text, "  "])
    _run(pipeline_params({"s": folder_source(tmp_path / "a")}, max_caption_chars=500), layout)
    metas = {key: meta for split in _samples(layout).values() for key, meta in split.items()}
    stored = {name: metas[f"s/{name}"]["captions"]["en"] for name in texts}
    assert stored == {
        **{name: [text] for name, text in texts.items()},
        "long": ["x" * 500],
        "control": ["a b [31mc d"],
        "scripts": ["青蛙 ضفدع मेंढक é"],
    }


def test_equal_pictures_become_one_sample_across_sources(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    write_pairs(tmp_path / "b", range(100, 106))
    _pair(tmp_path / "a", "one", png(700), caption="first", split="train", title="A")
    _pair(
        tmp_path / "b", "two", png(700), captions={"en": ["second", "first"], "de": "zweite"}, split="train", title="B"
    )
    _pair(tmp_path / "b", "three", png(701), caption="seen", split="train")
    _pair(tmp_path / "b", "four", png(701), caption="measured", split="val")
    _run(pipeline_params({"b": folder_source(tmp_path / "b"), "a": folder_source(tmp_path / "a")}), layout)
    samples = _samples(layout)
    assert samples["train"]["a/one"]["captions"] == {"en": ["first", "second"], "de": ["zweite"]}
    assert samples["train"]["a/one"]["title"] == "A"
    assert samples["val"]["b/four"]["captions"] == {"en": ["measured"]}
    assert _dropped(layout) == {"b/three": "duplicate_of_val"}
    merged = [entry for entry in read_ledger(layout.shards) if entry.outcome == "merged"]
    assert merged == [Entry("b", "b/two", "merged", "duplicate", "the same bytes as a/one, which has its captions now")]
    gates.require(layout.shards)


def test_no_validation_caption_stands_in_training(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    _pair(tmp_path / "a", "v", png(600), captions={"en": ["A frog", "A green one"], "de": "Frosch"}, split="val")
    _pair(tmp_path / "a", "all", png(601), captions={"en": "a FROG!", "fr": "autre"}, split="train")
    _pair(
        tmp_path / "a",
        "some",
        png(602),
        captions={"en": ["A pond", "a green one."], "de": ["Frosch", "Teich"]},
        split="train",
    )
    _pair(tmp_path / "a", "other", png(603), captions={"en": "A toad", "sv": "frosch"}, split="train")
    _pair(tmp_path / "a", "german", png(604), captions={"de": "Frosch", "fr": "x"}, split="train")
    _run(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    samples = _samples(layout)
    assert _dropped(layout) == {"s/all": "caption_of_val", "s/german": "caption_of_val"}
    assert samples["train"]["s/some"]["captions"] == {"en": ["A pond"], "de": ["Teich"]}
    assert samples["train"]["s/other"]["captions"] == {"en": ["A toad"]}
    assert samples["val"]["s/v"]["captions"] == {"en": ["A frog", "A green one"], "de": ["Frosch"]}
    changed = {entry.key for entry in read_ledger(layout.shards) if entry.outcome == "changed"}
    assert changed == {"s/some", "s/other"}

    def texts(split: str) -> set[str]:
        return {same_text(t) for meta in samples[split].values() for some in meta["captions"].values() for t in some}

    assert not texts("train") & texts("val")


def test_training_pictures_that_look_like_validation_ones_are_dropped(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    original = drawing(500, (160, 120))
    recoloured = original.point(lambda value: 255 - value)
    _pair(tmp_path / "a", "v", encoded(original), caption="measured", split="val")
    _pair(
        tmp_path / "a", "copy", encoded(original.resize((80, 60), Image.Resampling.BICUBIC)), caption="b", split="train"
    )
    _pair(tmp_path / "a", "jpeg", encoded(original, "JPEG", quality=60), caption="c", split="train")
    _pair(tmp_path / "a", "colours", encoded(recoloured), caption="d", split="train")
    source = {"s": folder_source(tmp_path / "a")}
    _run(pipeline_params(source), layout)
    assert _dropped(layout) == {"s/copy": "near_duplicate_of_val", "s/jpeg": "near_duplicate_of_val"}
    assert "looks like s/v" in {entry.detail for entry in read_ledger(layout.shards)}
    _run(pipeline_params(source, near_duplicate_distance=-1), layout)
    assert _dropped(layout) == {}


def test_the_split_is_the_source_s_or_a_group_s_and_stays(layout: Layout, tmp_path: Path):
    for number in range(60):
        _pair(tmp_path / "a", f"{number:03d}", png(number), caption=f"caption {number}", album=f"album {number // 6}")
    source = {"s": folder_source(tmp_path / "a", group_field="album")}
    _run(pipeline_params(source, val_fraction=0.4), layout)
    before = {split: set(metas) for split, metas in _samples(layout).items()}
    sides = {key: split for split, keys in before.items() for key in keys}
    albums = [{sides[f"s/{number:03d}"] for number in range(6 * album, 6 * album + 6)} for album in range(10)]
    assert all(len(album) == 1 for album in albums) and set.union(*albums) == {"train", "val"}
    for number in range(60, 90):
        _pair(tmp_path / "a", f"{number:03d}", png(number), caption=f"caption {number}", album=f"album {number // 6}")
    _run(pipeline_params(source, val_fraction=0.4), layout)
    after = {split: set(metas) for split, metas in _samples(layout).items()}
    assert before["train"] <= after["train"] and before["val"] <= after["val"]


def test_one_caption_is_on_one_side(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(60), captions="caption {}")
    for number in range(60):
        _pair(tmp_path / "a", f"again{number}", png(1000 + number), caption=f"CAPTION  {number}!")
    _run(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    side = {key: split for split, metas in _samples(layout).items() for key in metas}
    assert Counter(side.values())["val"] > 10
    assert all(side[f"s/{number:04d}"] == side[f"s/again{number}"] for number in range(60))
    assert _dropped(layout) == {}


def test_workers_and_places_do_not_matter(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_pairs(tmp_path / "a", range(150))
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "0.tar", members_of(*range(300, 312)))
    params = pipeline_params(
        {"a": folder_source(tmp_path / "a"), "w": {"kind": "webdataset", "path": str(tmp_path / "w")}}
    )
    _run(params, layout)
    expected = tree(layout.shards)
    assert len(shard_names(layout.shards, "train")) > 5
    (tmp_path / "other" / "place").mkdir(parents=True)
    other = Layout.find(tmp_path / "other" / "place")
    monkeypatch.setenv("FLAME_WORKERS", "2")
    settings.cache_clear()
    _run(params, other)
    assert tree(other.shards) == expected


def test_added_pairs_change_only_the_shards_they_fall_in(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(0, 300, 2))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    _run(params, layout)
    shards, units = tree(layout.shards), _units(layout)
    write_pairs(tmp_path / "a", range(151, 152))
    _run(params, layout)
    before = {content for name, content in shards.items() if name.endswith(".tar")}
    after = {content for name, content in tree(layout.shards).items() if name.endswith(".tar")}
    assert 1 <= len(after - before) <= 3 and len(after) > 12
    new = _units(layout).keys() - units.keys()
    assert 2 <= len(new) <= 6  # scans and shards
    assert {digest: made for digest, made in _units(layout).items() if digest in units} == units


def test_only_what_is_damaged_is_computed_again(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(120))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    _run(params, layout)
    expected, units = tree(layout.shards), _units(layout)
    ingest.run(params, layout)
    assert (tree(layout.shards), _units(layout)) == (expected, units)
    damaged = []
    for name in ("shard.tar", "pictures.bin", "scan.parquet"):
        path = sorted((layout.work / "ingest").glob(f"*/{name}"))[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        damaged.append(path.parent.name)
    assert tree(layout.shards) != expected  # the out is a link to the same file
    ingest.run(params, layout)
    assert tree(layout.shards) == expected
    again = _units(layout)
    assert {digest for digest in units if units[digest] != again[digest]} == set(damaged)


def test_killed_at_any_moment_and_run_again(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(260))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    _run(params, layout)
    expected = tree(layout.shards)
    rng = random.Random(0)
    for attempt in range(2):
        shutil.rmtree(layout.shards, ignore_errors=True)
        shutil.rmtree(layout.work / "ingest")
        process = start_stage("ingest", params, layout, workers="1")
        enough = rng.randrange(1, 12)
        while process.poll() is None and len(_units(layout)) < enough:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"attempt {attempt} ended too early"
        assert not layout.shards.exists()
        found = _units(layout)
        ingest.run(params, layout)
        assert tree(layout.shards) == expected
        assert found.items() <= _units(layout).items()


def test_a_full_disk_says_so_and_leaves_nothing_half_done(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(40))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    download.run(params, layout)
    limited = start_stage("ingest", params, layout, workers="1")
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    output, _ = limited.communicate()
    assert limited.returncode != 0
    assert b"ResourceError" in output and b"Free some room" in output, output.decode()
    assert not layout.shards.exists()
    ingest.run(params, layout)
    gates.require(layout.shards)


def test_a_source_that_changed_since_is_refused(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(30))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    download.run(params, layout)
    content = png(3)
    (tmp_path / "a" / "0003.png").write_bytes(content + b"more")
    with pytest.raises(InputError, match=r"0003\.png has .* bytes"):
        ingest.run(params, layout)
    (tmp_path / "a" / "0003.png").write_bytes(content[:-1] + b"\x00")
    with pytest.raises(InputError, match=r"0003\.png.*are not those that `flame download` listed"):
        ingest.run(params, layout)
    (tmp_path / "a" / "0003.png").write_bytes(content)
    ingest.run(params, layout)
    gates.require(layout.shards)


def test_a_damaged_tar_is_in_the_ledger(layout: Layout, tmp_path: Path):
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "0.tar", members_of(*range(12)))
    write_tar(tmp_path / "w" / "1.tar", members_of(*range(12, 24)))
    content = (tmp_path / "w" / "1.tar").read_bytes()
    (tmp_path / "w" / "1.tar").write_bytes(content[: len(content) // 2])
    _run(pipeline_params({"s": {"kind": "webdataset", "path": str(tmp_path / "w")}}), layout)
    assert _dropped(layout) == {"1.tar": "damaged_file", "s/1/000018": "no_caption"}  # cut off within its text
    assert _failed(layout) == {"sources_readable"}
    gates.require(layout.shards)
    assert 12 < len(read_index(layout.shards)) < 24


def test_fitting_jpegs_keep_their_bytes(layout: Layout, tmp_path: Path):
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "0.tar", members_of(*range(12)))
    _run(pipeline_params({"s": {"kind": "webdataset", "path": str(tmp_path / "w")}}, max_side=96), layout)
    reader = PictureReader(layout.shards)
    stored = {row.key: reader.jpeg(row) for row in read_index(layout.shards)}
    assert stored == {f"s/0/{number:06d}": encoded(drawing(number), "JPEG") for number in range(12)}


def test_too_little_is_a_failed_gate(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    for number in range(4):
        (tmp_path / "a" / f"bad{number}.png").write_bytes(b"")
    _run(pipeline_params({"s": folder_source(tmp_path / "a")}, val_fraction=0.0), layout)
    assert _failed(layout) == {"kept_fraction", "val_samples", "languages"}
    with pytest.raises(GateError, match="kept_fraction"):
        gates.require(layout.shards)


def test_nothing_good_at_all_is_a_failed_gate_and_no_crash(layout: Layout, tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    _run(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    assert {"kept_fraction", "train_samples", "val_samples"} <= _failed(layout)
    assert read_index(layout.shards) == []


def test_ingest_needs_a_download_that_passed(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    with pytest.raises(InputError, match="run the stage"):
        ingest.run(params, layout)
    download.run(params, layout)
    (layout.raw / gates.CHECKS).write_bytes(
        gates.to_bytes([gates.Check("s/pairs", False, "the source lists pairs", 0, 1)])
    )
    with pytest.raises(GateError, match="s/pairs"):
        ingest.run(params, layout)
