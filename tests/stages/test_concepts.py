"""flame concepts: counts of all shards, the same after a kill, one byte flipped, one shard more, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.concepts.bitmaps import read_bitmaps
from flame_core.concepts.concept_out import hits_name, read_frequencies, read_manifest
from flame_core.concepts.lemmas import identity_hash, lemmas
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import ConceptParams, Params
from flame_core.settings import settings
from flame_core.stages import concepts
from flame_core.verification import verify
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree
from tests.stages.units import computed_by, killed_after

NAMES = ["drawing", "numbers", "number 7", "7", "red drawing", "zebra", "12"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards and captions `drawing number <n>` of 40 drawings in several shards, and a file of concepts."""
    root = tmp_path_factory.mktemp("concepts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        settings.cache_clear()
        params, layout = captioned_project(root, byte_tokenizer, 40)
        (root / "names.txt").write_text("\n".join(NAMES) + "\n")
        yield params, layout


def choosing(params: Params, **values) -> Params:
    chosen = ConceptParams.model_validate({"file": "names.txt", **values})
    return params.model_copy(update={"concepts": chosen})


def counted(layout: Layout) -> dict[str, int]:
    found = read_frequencies(layout.concepts)
    return dict(zip(found.concepts.names, found.text.tolist(), strict=True))


def texts_of(layout: Layout) -> list[list[str]]:
    """The lemmas of the training captions, in order."""
    files = sorted((layout.captions / "train").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist() if row["kind"] == "raw"]
    return [list(lemmas(row["text"], "en")) for row in rows]


def test_counts_are_those_of_the_captions_and_hits_say_which(world):
    params, layout = world
    concepts.run(choosing(params), layout)
    texts = texts_of(layout)
    assert counted(layout) == {
        "drawing": len(texts),
        "numbers": len(texts),
        "number 7": sum("7" in text for text in texts),
        "7": sum("7" in text for text in texts),
        "12": sum("12" in text for text in texts),
        "red drawing": 0,
        "zebra": 0,
    }
    verify({layout.concepts: ["*"]})
    gates.require(layout.concepts)
    found = read_frequencies(layout.concepts)
    place = found.concepts.names.index("12")
    index = read_index(layout.shards, "train")
    hits = {shard: read_bitmaps(layout.concepts / hits_name(shard))["phrase"][place] for shard in index.shard_sizes()}
    keys = [row.key for row in index if row.row in hits[row.shard]]
    assert [key for key in keys if key.endswith("0012")] == keys and len(keys) == counted(layout)["12"]
    manifest = read_manifest(layout.concepts)
    assert manifest["normaliser"]["sha256"] == identity_hash("en")
    assert str(layout.root) not in json.dumps(manifest)
    page = (layout.concepts / "concepts.html").read_text("utf-8")
    assert "zebra" in page and "number 7" in page


def test_unknown_words_are_dropped_if_params_say_so(world):
    params, layout = world
    concepts.run(choosing(params, unknown="drop"), layout)
    assert counted(layout)["red drawing"] == counted(layout)["drawing"]
    found = read_frequencies(layout.concepts)
    assert found.unknown[found.concepts.names.index("red drawing")] == ["red"]


def test_processes_do_not_change_a_byte(world, monkeypatch):
    params, layout = world
    concepts.run(choosing(params), layout)
    first = tree(layout.concepts)
    shutil.rmtree(layout.work / "concepts")
    with monkeypatch.context() as patch:
        patch.setenv("FLAME_WORKERS", "2")
        settings.cache_clear()
        concepts.run(choosing(params), layout)
    settings.cache_clear()
    assert tree(layout.concepts) == first


@pytest.mark.parametrize("after", [0, 3, 6, 9])
def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world, after):
    params, layout = world
    chosen = choosing(params, nouns={"min_captions": 2}, weights={"cap": 3})
    concepts.run(chosen, layout)
    first, weights = tree(layout.concepts), tree(layout.concept_weights)
    shutil.rmtree(layout.work / "concepts")
    shutil.rmtree(layout.concepts)
    done = killed_after(after, lambda: concepts.run(chosen, layout))
    assert not layout.concepts.exists()
    again = computed_by(lambda: concepts.run(chosen, layout))
    assert not set(again) & set(done)
    assert tree(layout.concepts) == first and tree(layout.concept_weights) == weights


def test_a_flipped_byte_in_the_cache_is_found_and_one_in_the_captions_refused(world, caplog):
    params, layout = world
    concepts.run(choosing(params), layout)
    first = tree(layout.concepts)
    file = sorted((layout.work / "concepts").glob("*/words.safetensors"))[0]
    flip(file, file.stat().st_size - 3, 2)
    concepts.run(choosing(params), layout)
    assert "is damaged; computing it again" in caplog.text and tree(layout.concepts) == first
    captions = sorted((layout.captions / "train").glob("*.parquet"))[0]
    before = captions.read_bytes()
    captions.unlink()
    captions.write_bytes(before)
    flip(captions, 20, 1)
    try:
        with pytest.raises(InputError, match=r"00000\.parquet is damaged"):
            concepts.run(choosing(params), layout)
    finally:
        captions.write_bytes(before)


def test_one_shard_more_counts_only_that_shard(tmp_path, byte_tokenizer, monkeypatch):
    """More pairs fill further shards; the units of full ones stay."""
    monkeypatch.setenv("FLAME_WORKERS", "1")
    settings.cache_clear()
    params, layout = captioned_project(tmp_path, byte_tokenizer, 40)
    (tmp_path / "names.txt").write_text("drawing\nnumber\n")
    concepts.run(choosing(params), layout)
    before = {path.name for path in (layout.work / "concepts").iterdir()}
    counts = counted(layout)
    from flame_core.stages import caption, download, ingest
    from tests.stages.pipeline import write_pairs

    write_pairs(tmp_path / "pairs", range(40, 60))
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    concepts.run(choosing(params), layout)
    shards = len(read_index(layout.shards, "train").shard_sizes())
    new = {path.name for path in (layout.work / "concepts").iterdir()} - before
    assert counted(layout)["drawing"] > counts["drawing"]
    assert len(new) < 3 * shards  # words, hits and both together, of some shards only
    fresh = tree(layout.concepts)
    shutil.rmtree(layout.work / "concepts")
    concepts.run(choosing(params), layout)
    assert tree(layout.concepts) == fresh


def table(path: Path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_tags_of_a_table_give_counts_in_pictures_with_thresholds_per_concept(world, tmp_path):
    params, layout = world
    keys = [row.key for row in read_index(layout.shards, "train")]
    rows = [{"key": key, "tags": ["Drawings", "12"], "scores": [0.9, i / len(keys)]} for i, key in enumerate(keys)]
    images = {"tagger": {"kind": "table", "path": table(tmp_path / "tags.parquet", rows)}, "threshold": 0.5}
    concepts.run(choosing(params, images=images), layout)
    found = read_frequencies(layout.concepts)
    by_name = dict(zip(found.concepts.names, found.counts.image.tolist(), strict=True))
    assert by_name["drawing"] == len(keys) == by_name["drawing"] and by_name["zebra"] == 0
    assert by_name["12"] == sum(np.float16(i / len(keys)) > 0.5 for i in range(len(keys)))
    assert (found.counts.both <= np.minimum(found.text, found.counts.image)).all()
    previous = by_name["12"]
    for threshold in (0.6, 0.7, 0.95):  # a higher threshold never counts more
        (tmp_path / "t.json").write_text(json.dumps({"12": threshold}))
        concepts.run(choosing(params, images={**images, "thresholds": str(tmp_path / "t.json")}), layout)
        now = read_frequencies(layout.concepts).counts.image
        assert now[found.concepts.names.index("12")] <= previous and now[found.concepts.names.index("drawing")] == len(
            keys
        )
        previous = int(now[found.concepts.names.index("12")])
    assert previous < by_name["12"]
    (tmp_path / "t.json").write_text(json.dumps({"lion": 0.3}))
    with pytest.raises(InputError, match="there is no concept 'lion'"):
        concepts.run(choosing(params, images={**images, "thresholds": str(tmp_path / "t.json")}), layout)
    (tmp_path / "t.json").write_text(json.dumps({"12": 0.1}))
    with pytest.raises(ParamsError, match=r"below concepts\.images\.floor"):
        high = {**images, "floor": 0.3, "thresholds": str(tmp_path / "t.json")}
        concepts.run(choosing(params, images=high), layout)


def test_bad_tables_are_refused_with_the_row(world, tmp_path):
    params, layout = world
    for rows, said in (
        ([{"key": "a", "tags": ["x"]}, {"key": "a", "tags": []}], r"row 1: the key 'a' is there a second time"),
        ([{"key": "a", "tags": ["x"], "scores": [0.1, 0.2]}], r"row 0: 1 tags and 2 scores of 'a'"),
        ([{"key": "a", "names": ["x"]}], r"no column `tags`; it has key, names"),
    ):
        images = {"tagger": {"kind": "table", "path": table(tmp_path / "bad.parquet", rows)}, "threshold": 0.5}
        with pytest.raises(InputError, match=said):
            concepts.run(choosing(params, images=images), layout)


def test_weights_are_those_of_the_formula(world):
    params, layout = world
    concepts.run(choosing(params, weights={"cap": 3, "other": 0.25}), layout)
    found = counted(layout)
    index = read_index(layout.shards, "train")
    weights = Sidecar(layout.concept_weights).read([(row.shard, row.row) for row in index]).numpy()
    texts = texts_of(layout)
    for text, weight in zip(texts, weights, strict=True):
        own = ["drawing", "numbers"] + [name for name in ("7", "12", "number 7") if name.split()[-1] in text]
        missed = np.prod([1 - min(1, 3 / found[name]) for name in own])
        assert weight == pytest.approx(1 - missed)


def test_bad_input_is_named(world):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `concepts`"):
        concepts.run(params, layout)
    with pytest.raises(InputError, match="fewer than two categories"):
        concepts.run(choosing(params, benchmarks=["held-out-classes"]), layout)
    with pytest.raises(InputError, match=r"is missing, the file of concepts"):
        concepts.run(choosing(params, file="no.txt"), layout)
    (layout.root / "bad.txt").write_text("fox\n--\n")
    with pytest.raises(InputError, match=r"bad\.txt, line 2: the concept '--' has no lemma"):
        concepts.run(choosing(params, file="bad.txt"), layout)
    with pytest.raises(ValueError, match="needs concepts"):
        ConceptParams()


def test_warnings_name_concepts_without_captions(world):
    params, layout = world
    concepts.run(choosing(params, gates={"max_zero_fraction": 0.1}), layout)
    by_name = {check.name: check for check in gates.read(layout.concepts)}
    assert by_name["concepts_found"].keys == ["red drawing", "zebra"] and not by_name["concepts_found"].blocking
    assert by_name["concept_counts_joint"].passed and by_name["concept_shards_add_up"].passed


def labels_file(path: Path, rows: list[tuple[str, str, str]]) -> str:
    path.write_text("\n".join(["key,concept,present", *(",".join(row) for row in rows)]) + "\n")
    return str(path)


def test_labelled_pictures_give_concepts_thresholds_of_their_own(world, tmp_path):
    """`12` is shown by the pictures with scores above 0.25, which the threshold of all would miss."""
    params, layout = world
    keys = [row.key for row in read_index(layout.shards, "train")]
    scores = {key: i / len(keys) for i, key in enumerate(keys)}
    rows = [{"key": key, "tags": ["12", "7"], "scores": [scores[key], 0.4]} for key in keys]
    labels = [(key, "12", str(int(scores[key] > 0.25))) for key in keys[::2]] + [(keys[0], "7", "1")]
    images = {
        "tagger": {"kind": "table", "path": table(tmp_path / "tags.parquet", rows)},
        "threshold": 0.6,
        "labels": labels_file(tmp_path / "labels.csv", labels),
    }
    concepts.run(choosing(params, images=images), layout)
    counts = read_frequencies(layout.concepts)
    by_name = dict(zip(counts.concepts.names, counts.counts.image.tolist(), strict=True))
    found = json.loads((layout.concepts / "thresholds.json").read_text())
    assert found.keys() == {"12"} and abs(found["12"] - 0.25) <= 2 / len(keys)
    assert by_name["12"] == sum(float(np.float16(score)) > found["12"] for score in scores.values())
    assert by_name["7"] == 0  # the threshold of all
    (check,) = [each for each in gates.read(layout.concepts) if each.name == "concept_thresholds_calibrated"]
    assert check.value == 1.0 and check.keys == ["7 (all its labels are 1)"] and not check.passed and not check.blocking
    (tmp_path / "own.json").write_text(json.dumps({"12": 0.9}))
    concepts.run(choosing(params, images={**images, "thresholds": str(tmp_path / "own.json")}), layout)
    own = read_frequencies(layout.concepts).counts.image[counts.concepts.names.index("12")]
    assert own == sum(float(np.float16(score)) > 0.9 for score in scores.values())  # what is written counts
    for rows_, said in (
        ([("nobody", "12", "1")], "line 2: 'nobody' is no picture of the training split"),
        ([(keys[0], "lion", "1")], "line 2: there is no concept 'lion'"),
        ([(keys[0], "12", "yes")], "line 2: write a key, a concept, and 1 or 0"),
        ([(keys[0], "12", "1"), (keys[0], "12", "0")], "line 3: .* is labelled for '12' a second time"),
    ):
        bad = {**images, "labels": labels_file(tmp_path / "bad.csv", rows_)}
        with pytest.raises(InputError, match=said):
            concepts.run(choosing(params, images=bad), layout)
    (tmp_path / "bad.csv").write_text("key,name\n")
    with pytest.raises(InputError, match="its first line must be key,concept,present"):
        concepts.run(choosing(params, images={**images, "labels": str(tmp_path / "bad.csv")}), layout)
