"""The stages evaluate and compare, and query, on real shards, a real (untrained) tower and a real store."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from flame_core import gates
from flame_core.digest import file_sha256, write_json
from flame_core.errors import GateError, InputError
from flame_core.measuring.query import search
from flame_core.params import TextTowerParams, TrainParams, merge
from flame_core.stages import baselines, compare, evaluate
from flame_core.text import transformer
from flame_core.text.manifest import MANIFEST
from flame_core.text.store import CENTER, EMBEDDINGS, TOKENIZER
from flame_core.text.tensor_file import write_tensors
from flame_core.verification import write_digests
from tests.conftest import tiny_llm
from tests.measuring import world
from tests.stages.finished_run import finished_run, model


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setenv("FLAME_DEVICE", "cpu")


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate_writes_the_same_report_twice_and_compare_reads_it(run):
    params, layout = run
    evaluate.run(params, layout, "plain")
    first = contents(layout.report("plain"))
    assert first.keys() >= {
        "metrics.json", "results.json", "outcomes.parquet", "report.html", "checks.json", "digests.json",
        "plots/loss.svg", "plots/recall_image_to_text.svg",
    }  # fmt: skip
    metrics = json.loads(first["metrics.json"])
    assert metrics["retrieval/en/n"] == 12
    assert metrics["retrieval/en/ceiling/recall@10"] == 1.0  # every caption finds its own
    assert 0 < metrics["retrieval/de/ceiling/recall@10"] <= 1.0
    evaluate.run(params, layout, "plain")
    assert contents(layout.report("plain")) == first

    evaluate.run(params, layout, "other")
    assert contents(layout.report("other"))["metrics.json"] != first["metrics.json"]
    baselines.run(params, layout)
    compare.run(params, layout)
    table = json.loads((layout.comparison / compare.COMPARISON).read_text())
    assert list(table["recipes"]) == ["other", "plain"]  # sorted by JSON; the baseline is named
    assert table["baseline"] == "plain"
    assert "within_interval" in table["recipes"]["other"]["classification/top1"]
    assert "other" in (layout.comparison / compare.PAGE).read_text()
    assert gates.read(layout.comparison)


def test_the_tower_is_loaded_once(run, monkeypatch):
    from flame_core.vision import tower

    loaded = []
    load = tower.load_encoder
    monkeypatch.setattr(tower, "load_encoder", lambda *given: loaded.append(given) or load(*given))
    evaluate.run(*run, "plain")
    assert len(loaded) == 1


def test_inputs_with_a_failed_gate_or_of_another_run_are_refused(run):
    params, layout = run
    bad = gates.Check("loss_went_down", False, "it did not")
    (layout.model("plain") / gates.CHECKS).write_bytes(gates.to_bytes([bad]))
    with pytest.raises(GateError, match="loss_went_down"):
        evaluate.run(params, layout, "plain")
    moved = params.model_copy(update={"text": params.text.model_copy(update={"layer": 1})})
    with pytest.raises(InputError, match="layer"):
        evaluate.run(moved, layout, "other")
    with pytest.raises(InputError, match="reports/plain"):
        compare.run(params, layout)
    config = layout.model("other") / "config.json"
    write_json(config, {**json.loads(config.read_text()), "layer": 1})
    write_digests(layout.model("other"))
    with pytest.raises(InputError, match="differ in layer; run `flame train other`"):
        evaluate.run(params, layout, "other")
    with pytest.raises(InputError, match="differ in layer"):
        search(params, layout, "other", "Eine grüne Sache.", top=1)


def test_a_query_by_facets_meets_the_picture_facet_by_facet(run):
    """The tower of `other` gets facet tokens; that of `plain` has none, so there every facet meets the whole."""
    from flame_core.vision.tower import load_encoder

    params, layout = run
    changed = {"model": {"facet_blocks": "all"}, "objective": {"name": "facet_sigmoid"}}
    recipe = TrainParams.model_validate(merge(params.train["other"].model_dump(), changed))
    params = params.model_copy(update={"train": params.train | {"other": recipe}})
    shutil.rmtree(layout.model("other"))
    model(params, layout.model("other"), "other", seed=5)
    (layout.model("other") / gates.CHECKS).write_bytes(gates.to_bytes([]))
    write_digests(layout.model("other"))
    jpegs = [world.jpeg(index) for index in range(12)]
    text = "Thing number 3."
    t = world.lookup("short", [text])[0]  # [2, D]
    for name in ("plain", "other"):
        z = load_encoder(layout.model(name), "cpu").encode_facets(jpegs)
        assert z.shape[1] == {"plain": 1, "other": 3}[name]
        own = z[:, 1:] if name == "other" else np.repeat(z, 2, axis=1)
        scores = (own[:, 0] @ t[0] + own[:, 1] @ t[1]) / 2
        hits = search(params, layout, name, text, top=12, facets=True)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
        assert hits[0].key == world.KEYS[int(np.argmax(scores))]
    evaluate.run(params, layout, "other")


def test_query_ranks_the_gallery_and_keeps_its_embeddings(run):
    from flame_core.vision.tower import load_encoder

    params, layout = run
    text = "Eine grüne Sache."
    hits = search(params, layout, "plain", text, top=4)
    z = load_encoder(layout.model("plain"), "cpu").encode([world.jpeg(index) for index in range(12)])
    scores = z @ world.vector("raw", text, 0)
    assert [hit.key for hit in hits] == [world.KEYS[i] for i in np.argsort(-scores)[:4]]
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:4], abs=1e-5)
    assert hits[0].caption == f"A {world.COLOURS[max(world.KEYS.index(hits[0].key), 1)]} thing."
    assert hits[0].shard == "val/00000.tar"

    (unit,) = (layout.work / "query").iterdir()
    before = file_sha256(unit / "gallery.npy"), (unit / "gallery.npy").stat().st_mtime_ns
    assert search(params, layout, "plain", text, top=4) == hits
    assert (file_sha256(unit / "gallery.npy"), (unit / "gallery.npy").stat().st_mtime_ns) == before
    assert np.load(io.BytesIO((unit / "gallery.npy").read_bytes())).shape == (12, 1, world.DIMENSIONS)

    both = search(params, layout, "plain", text, top=20, splits=("val", "train"))
    assert len(both) == 12 + 3
    assert {hit.shard for hit in both} == {"val/00000.tar", "train/00000.tar"}
    search(params, layout, "other", text, top=1)
    assert len(list((layout.work / "query").iterdir())) == 3


def test_a_text_that_the_store_lacks_goes_through_the_llm(run, byte_tokenizer):
    """The store's centring holds for it as well: the mean that is subtracted is that of the raw facet."""
    from flame_core.text.encoder import TextEncoder
    from flame_core.vision.tower import load_encoder

    params, layout = run
    folder = layout.llm / params.llm.name
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    write_json(folder / "source.json", {"files": {}})
    params = params.model_copy(update={"text": params.text.model_copy(update={"center": "per_facet"})})
    centers = np.random.default_rng(0).normal(size=(3, world.DIMENSIONS)).astype(np.float32)
    (layout.train_embeddings).mkdir()
    write_tensors(layout.train_embeddings / CENTER, {EMBEDDINGS: centers}, "float32")
    manifest = json.loads((layout.embeddings / MANIFEST).read_text())
    write_json(layout.embeddings / MANIFEST, {**manifest, "center": "per_facet"})

    hits = search(params, layout, "plain", "something nobody wrote", top=12)
    t = TextEncoder.open(params, layout).encode("raw", ["something nobody wrote"])[0, 0] - centers[0]
    z = load_encoder(layout.model("plain"), "cpu").encode([world.jpeg(index) for index in range(12)])
    scores = z @ (t / np.linalg.norm(t))
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)


def test_a_query_to_a_model_with_a_text_tower_is_read_by_that_tower(run, byte_tokenizer):
    """Also a text that the store holds, and never by the LLM: a tower that is gone is an error."""
    from flame_core.vision.tower import load_encoder

    params, layout = run
    folder = layout.model("other")
    tower = TextTowerParams(width=16, depth=1, heads=2, max_tokens=32)
    config = json.loads((folder / "config.json").read_text())
    config["recipe"]["text_tower"] = tower.model_dump()
    write_json(folder / "config.json", {**config, "text_facets": {"raw": 1, "short": 2}})
    byte_tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    vocabulary = transformer.Captions(folder / TOKENIZER, tower).end + 1
    save_file(transformer.TextTower(tower, vocabulary, world.DIMENSIONS).state_dict(), folder / transformer.WEIGHTS)
    write_digests(folder)
    z = load_encoder(folder, "cpu").encode([world.jpeg(index) for index in range(12)])
    for text in ("Eine grüne Sache.", "something nobody wrote"):
        scores = z @ transformer.TrainedTexts(folder, "cpu").lookup("raw", [text])[0, 0]
        hits = search(params, layout, "other", text, top=12)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    (folder / transformer.WEIGHTS).unlink()
    write_digests(folder)
    with pytest.raises(InputError, match=r"models/other is not a usable model .*run `flame train` for it"):
        search(params, layout, "other", "Eine grüne Sache.", top=1)
    with pytest.raises(InputError, match="models/other is not a usable model"):
        evaluate.run(params, layout, "other")
