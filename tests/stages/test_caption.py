from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.captions import rewrite, vlm
from flame_core.captions.table import read_captions
from flame_core.data.shards import INDEX, INDEX_SCHEMA, Sample, write_shard
from flame_core.digest import file_sha256
from flame_core.errors import GateError, InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.stages import caption
from flame_core.verification import write_digests
from tests.captions.pictures import box, disc, noise, sample
from tests.captions.tiny_models import save_llava, save_llm, say_nothing

FAILS = Sample("s0-1", b"\xff\xd8 no picture", sample().meta)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """No worker processes, whose start takes longer than these tests."""
    use_workers(monkeypatch, 1)


def use_workers(monkeypatch, count: int) -> None:
    monkeypatch.setenv("FLAME_WORKERS", str(count))
    settings.cache_clear()


def make_params(sources=None, **changes) -> Params:
    section = {"prefix": "{caption}", "facets": ["means"]}
    return Params.model_validate(
        {
            "sources": sources or {"test": {"kind": "folder", "path": "x"}},
            "caption": changes,
            "llm": {"name": "x", "source": "path:x"},
            "text": {"template": dict.fromkeys(("raw", "short", "long"), section), "layer": 1},
            "recipes": ["flame"],
            "train": {"flame": {}},
        }
    )


def write_shards(root: Path, shards: dict[str, list[Sample]], checks=()) -> Layout:
    """Shards, an index and checks as ingest leaves them."""
    layout = Layout(root, root)
    rows = []
    for name, samples in shards.items():
        path = layout.shards / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for row, (one, (offset, size)) in enumerate(zip(samples, write_shard(path, samples), strict=True)):
            place = {"key": one.key, "split": name[:-10], "shard": name, "row": row, "offset": offset, "size": size}
            rows.append(place | {"width": 200, "height": 200, "sha256": one.meta["sha256"], "captions": 1})
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), layout.shards / INDEX)
    (layout.shards / gates.CHECKS).write_bytes(gates.to_bytes(checks))
    write_digests(layout.shards)
    return layout


def three_shards() -> dict[str, list[Sample]]:
    languages = {"de": ["Ein Ding."], "en": ["A thing.", "Some thing."], "ar": ["شيء"]}
    return {
        "train/00000.tar": [
            sample("s0-0", disc("red"), captions=languages, category="animals/birds"),
            sample("s0-1", box("blue"), captions={"en": ['He said "{caption}" {0} \x07']}),
        ],
        "train/00001.tar": [sample("s1-0", noise(), captions={"fr": ["Un chien."]})],
        "val/00000.tar": [sample("v0-0", disc("green"), captions={"en": ["A green button."]})],
    }


def out(layout: Layout) -> dict[str, bytes]:
    folder = layout.captions
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def units(layout: Layout) -> dict[str, int]:
    """Units of the work cache by digest, with the inode of their captions: a unit computed anew has another one."""
    return {path.parent.name: path.stat().st_ino for path in (layout.work / "caption").glob(f"*/{caption.CAPTIONS}")}


def checks(layout: Layout) -> dict[str, gates.Check]:
    return {check.name: check for check in gates.read(layout.captions)}


def test_rows_stand_in_shard_order_english_first_then_short_and_long(tmp_path):
    layout = write_shards(tmp_path, three_shards())
    caption.run(make_params(), layout)
    rows = read_captions(layout.captions / "train" / "00000.parquet")
    assert [(row.row, row.key, row.kind, row.language, row.provenance) for row in rows] == [
        (0, "s0-0", "raw", "en", "source:test"),
        (0, "s0-0", "raw", "en", "source:test"),
        (0, "s0-0", "raw", "ar", "source:test"),
        (0, "s0-0", "raw", "de", "source:test"),
        (0, "s0-0", "short", "en", "metadata"),
        (0, "s0-0", "long", "en", "metadata"),
        (1, "s0-1", "raw", "en", "source:test"),
        (1, "s0-1", "short", "en", "metadata"),
        (1, "s0-1", "long", "en", "metadata"),
    ]
    assert [row.text for row in rows if row.row == 0][:4] == ["A thing.", "Some thing.", "شيء", "Ein Ding."]
    assert rows[4].text == "A thing, round and in solid red on a white background."
    assert rows[6].text == 'He said "{caption}" {0} \x07'
    assert rows[7].text == 'He said "{caption}" {0}, square and in solid blue on a white background.'


def test_the_out_holds_a_file_a_shard_its_manifest_and_its_checks(tmp_path):
    layout = write_shards(tmp_path, three_shards())
    caption.run(make_params(), layout)
    assert set(out(layout)) == {
        "train/00000.parquet", "train/00001.parquet", "val/00000.parquet", "manifest.json", "checks.json",
        "digests.json",
    }  # fmt: skip
    manifest = json.loads((layout.captions / caption.MANIFEST).read_text())
    assert manifest["kinds"] == {
        "raw": {"captioner": "source"}, "short": {"captioner": "metadata"}, "long": {"captioner": "metadata"},
    }  # fmt: skip
    shard = manifest["shards"]["train/00000.tar"]
    assert shard == {
        "shard_sha256": file_sha256(layout.shards / "train/00000.tar"),
        "captions_sha256": file_sha256(layout.captions / "train/00000.parquet"),
        "samples": 2,
        "rows": 9,
    }
    gates.require(layout.captions)
    found = checks(layout)
    assert found["raw_languages"].value == {"en": 4, "de": 1, "ar": 1, "fr": 1}
    assert found["short_failed"].value == 0
    assert found["caption_words"].value["short"]["max"] >= found["caption_words"].value["short"]["mean"] >= 5


def test_two_roots_and_any_number_of_workers_give_the_same_bytes(tmp_path, monkeypatch):
    results = []
    for root, workers in ((tmp_path / "a", 1), (tmp_path / "b", 2)):
        use_workers(monkeypatch, workers)
        layout = write_shards(root, three_shards())
        caption.run(make_params(), layout)
        results.append(out(layout))
    assert results[0] == results[1]


def test_a_kind_that_is_null_is_not_made(tmp_path):
    layout = write_shards(tmp_path, three_shards())
    caption.run(make_params(short=None), layout)
    kinds = {row.kind for row in read_captions(layout.captions / "train" / "00000.parquet")}
    assert kinds == {"raw", "long"}
    assert not any(name.startswith("short") for name in checks(layout))


def test_running_again_computes_nothing_and_a_new_shard_only_itself(tmp_path):
    shards = three_shards()
    layout = write_shards(tmp_path, shards)
    caption.run(make_params(), layout)
    before, made = out(layout), units(layout)
    caption.run(make_params(), layout)
    assert (out(layout), units(layout)) == (before, made)
    write_shards(tmp_path, shards | {"val/00001.tar": [sample("v1-0", disc("blue"))]})
    caption.run(make_params(), layout)
    assert units(layout).items() > made.items() and len(units(layout)) == 4
    assert out(layout)["train/00000.parquet"] == before["train/00000.parquet"]


def test_gates_do_not_change_units_but_captioners_do(tmp_path):
    layout = write_shards(tmp_path, three_shards())
    caption.run(make_params(), layout)
    made = units(layout)
    caption.run(make_params(gates={"max_failed_fraction": 0.5}), layout)
    assert units(layout) == made
    caption.run(make_params(long=None), layout)
    assert len(units(layout)) == 6


@pytest.mark.parametrize("name", [caption.CAPTIONS, caption.SUMMARY, "ledger.json"])
def test_a_damaged_unit_is_computed_again_alone_and_the_bytes_are_back(tmp_path, name):
    layout = write_shards(tmp_path, three_shards())
    caption.run(make_params(), layout)
    before, made = out(layout), units(layout)
    damaged = sorted(made)[1]
    path = layout.work / "caption" / damaged / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the out is a hard link to it
    path.write_bytes(content)
    caption.run(make_params(), layout)
    assert out(layout) == before
    now = units(layout)
    assert {digest for digest in made if now[digest] != made[digest]} == {damaged}


KILLED = """
import os, signal, sys
from pathlib import Path
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import caption

write = caption._write
def interrupted(task, folder):
    if task.shard.name == "00001.tar":
        (folder / "half.parquet").write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(task, folder)
caption._write = interrupted
root = Path(sys.argv[1])
caption.run(Params.model_validate_json(sys.argv[2]), Layout(root, root))
"""


def test_a_killed_run_keeps_finished_shards_and_the_rerun_makes_the_rest(tmp_path):
    whole = write_shards(tmp_path / "whole", three_shards())
    caption.run(make_params(), whole)
    layout = write_shards(tmp_path / "killed", three_shards())
    command = [sys.executable, "-c", KILLED, str(layout.root), make_params().model_dump_json()]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2])
    assert ended.returncode == -signal.SIGKILL
    assert not layout.captions.exists()
    kept = units(layout)
    assert len(kept) == 1
    caption.run(make_params(), layout)
    assert units(layout).items() > kept.items() and len(units(layout)) == 3
    assert out(layout) == out(whole)


def test_a_failed_sample_has_its_raw_captions_alone_and_blocks_above_the_threshold(tmp_path):
    shards = three_shards()
    shards["train/00000.tar"][1] = FAILS
    layout = write_shards(tmp_path, shards)
    caption.run(make_params(gates={"max_failed_fraction": 0.25}), layout)
    rows = read_captions(layout.captions / "train" / "00000.parquet")
    assert [row.kind for row in rows if row.key == "s0-1"] == ["raw"]
    assert (checks(layout)["short_failed"].value, checks(layout)["short_failed"].keys) == (0.25, ["s0-1"])
    gates.require(layout.captions)
    caption.run(make_params(gates={"max_failed_fraction": 0.24}), layout)
    with pytest.raises(GateError, match=r"long_failed.*0\.25.*s0-1"):
        gates.require(layout.captions)


def test_retry_failed_computes_the_shards_with_failures_alone(tmp_path):
    shards = three_shards()
    shards["train/00000.tar"][1] = FAILS
    layout = write_shards(tmp_path, shards)
    caption.run(make_params(), layout)
    before, made = out(layout), units(layout)
    caption.run(make_params(), layout)
    assert units(layout) == made
    caption.run(make_params(), layout, retry_failed=True)
    now = units(layout)
    ledgers = {path.parent.name: json.loads(path.read_text()) for path in layout.work.rglob("ledger.json")}
    with_failures = {digest for digest, ledger in ledgers.items() if ledger["failures"]}
    assert {digest for digest in made if now[digest] != made[digest]} == with_failures
    assert [ledgers[digest]["failures"] for digest in with_failures] == [
        {
            "s0-1": "; ".join(
                f"{kind}: the picture cannot be decoded (UnidentifiedImageError)" for kind in ("short", "long")
            )
        }
    ]
    assert out(layout) == before


def test_shards_that_failed_their_gate_or_are_missing_or_damaged_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"checks\.json is missing"):
        caption.run(make_params(), Layout(tmp_path / "none", tmp_path / "none"))
    failed = gates.Check("kept", False, "too few samples", 0.1, 0.5)
    with pytest.raises(GateError, match="too few samples"):
        caption.run(make_params(), write_shards(tmp_path / "gate", three_shards(), [failed]))
    layout = write_shards(tmp_path / "damaged", three_shards())
    shard = layout.shards / "train" / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(InputError, match=r"00001\.tar"):
        caption.run(make_params(), layout)


def test_captions_that_are_not_those_of_the_index_block(tmp_path):
    shards = three_shards()
    layout = write_shards(tmp_path, shards)
    write_shard(layout.shards / "train/00000.tar", list(reversed(shards["train/00000.tar"])))
    write_digests(layout.shards)
    caption.run(make_params(), layout)
    with pytest.raises(GateError, match=r"samples_present.*train/00000\.tar"):
        gates.require(layout.captions)


def test_a_captioner_that_says_the_same_of_everything_blocks(tmp_path):
    same = [sample(f"k{i}", disc("red"), captions={"en": [f"A thing, number {i}."]}) for i in range(4)]
    layout = write_shards(tmp_path, {"train/00000.tar": same, "val/00000.tar": three_shards()["val/00000.tar"]})
    save_llava(tmp_path / "model")
    section = {"captioner": "vlm", "model": "path:model", "prompt": "Say.", "max_new_tokens": 4}
    caption.run(make_params(short=section, long=None, gates={"max_identical_fraction": 0.5}), layout)
    assert (checks(layout)["short_repeated"].value, checks(layout)["short_copied"].value) == (0.8, 0)
    with pytest.raises(GateError, match="short_repeated"):
        gates.require(layout.captions)


def test_a_vision_language_model_and_a_rewriting_one_through_the_stage(tmp_path, monkeypatch):
    shards = three_shards()
    shards["train/00000.tar"][1] = FAILS
    layout = write_shards(tmp_path, shards)
    save_llava(tmp_path / "models" / "vlm")
    save_llm(tmp_path / "models" / "llm")
    options = {"max_new_tokens": 6, "batch_size": 2}
    short = {"captioner": "vlm", "model": "path:models/vlm", "prompt": "Describe {caption}", **options}
    long = {"captioner": "rewrite", "model": "path:models/llm", "prompt": "Rewrite {caption}", **options}
    params = make_params(short=short, long=long, gates={"max_failed_fraction": 0.25})
    caption.run(params, layout)
    rows = [row for name in ("train/00000", "train/00001", "val/00000")
            for row in read_captions(layout.captions / f"{name}.parquet")]  # fmt: skip
    made = [(row.key, row.kind, row.provenance) for row in rows if row.kind != "raw"]
    assert made == [
        ("s0-0", "short", "vlm:vlm"), ("s0-0", "long", "rewrite:llm"), ("s0-1", "long", "rewrite:llm"),
        ("s1-0", "short", "vlm:vlm"), ("s1-0", "long", "rewrite:llm"),
        ("v0-0", "short", "vlm:vlm"), ("v0-0", "long", "rewrite:llm"),
    ]  # fmt: skip
    assert all(row.text for row in rows)
    gates.require(layout.captions)
    manifest = json.loads((layout.captions / caption.MANIFEST).read_text())
    assert manifest["kinds"]["short"]["model"] == "vlm"
    assert str(tmp_path) not in (layout.captions / caption.MANIFEST).read_text()

    before, made_units = out(layout), units(layout)

    def not_needed(*_):
        raise AssertionError("a model was loaded although every shard was found")

    with monkeypatch.context() as patch:
        patch.setattr(vlm, "load_model", not_needed)
        patch.setattr(rewrite, "load_model", not_needed)
        caption.run(params, layout)
    assert out(layout) == before

    written = tmp_path / "models" / "vlm" / "generation_config.json"
    written.write_text(written.read_text() + "\n")  # another model in the same place
    caption.run(params, layout)
    assert len(units(layout)) == 2 * len(made_units)


def test_a_model_that_says_nothing_blocks_and_one_that_is_not_there_is_named(tmp_path):
    layout = write_shards(tmp_path, three_shards())
    save_llm(tmp_path / "silent", speak=say_nothing)
    section = {"captioner": "rewrite", "model": "path:silent", "prompt": "{caption}"}
    caption.run(make_params(long=section), layout)
    with pytest.raises(GateError, match="long_failed"):
        gates.require(layout.captions)
    with pytest.raises(InputError, match="model path:nowhere: no such folder"):
        caption.run(make_params(long=section | {"model": "path:nowhere"}), layout)
