"""Searches by a text and by a picture: in splits and folders, by every kind of text side."""

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
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.model.locate import model_of_run
from flame_core.model_files import TEXT_WEIGHTS
from flame_core.params import Params, TextTowerParams, TrainParams, merge
from flame_core.search.ask import picture_asked
from flame_core.search.folder_index import embed_folder
from flame_core.stages import evaluate
from flame_core.text import transformer
from flame_core.text.manifest import MANIFEST
from flame_core.text.store import CENTER, EMBEDDINGS, TOKENIZER
from flame_core.text.tensor_file import write_tensors
from flame_core.verification import write_digests
from tests.conftest import tiny_llm
from tests.data.drawings import png
from tests.measuring import world
from tests.search.runs import ask_picture, ask_text, run_here, search
from tests.stages.finished_run import model


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    return run_here(tmp_path, monkeypatch)


def with_facet_tokens(params: Params, layout: Layout) -> tuple[Params, Layout]:
    """The run, its model `other` replaced by one whose tower has facet tokens."""
    changed = {"model": {"facet_blocks": "all"}, "objective": {"name": "facet_sigmoid"}}
    recipe = TrainParams.model_validate(merge(params.train["other"].model_dump(), changed))
    params = params.model_copy(update={"train": params.train | {"other": recipe}})
    shutil.rmtree(layout.model("other"))
    model(params, layout.model("other"), "other", seed=5)
    (layout.model("other") / gates.CHECKS).write_bytes(gates.to_bytes([]))
    write_digests(layout.model("other"))
    return params, layout


def test_a_query_by_facets_meets_the_picture_facet_by_facet(run):
    """The tower of `other` gets facet tokens; that of `plain` has none, so there every facet meets the whole."""
    from flame_core.vision.image_encoder import load_encoder

    params, layout = with_facet_tokens(*run)
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
    from flame_core.vision.image_encoder import load_encoder

    params, layout = run
    text = "Eine grüne Sache."
    hits = search(params, layout, "plain", text, top=4)
    z = load_encoder(layout.model("plain"), "cpu").encode([world.jpeg(index) for index in range(12)])
    scores = z @ world.vector("raw", text, 0)
    assert [hit.key for hit in hits] == [world.KEYS[i] for i in np.argsort(-scores)[:4]]
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:4], abs=1e-5)
    assert hits[0].caption == f"A {world.COLOURS[max(world.KEYS.index(hits[0].key), 1)]} thing."
    assert hits[0].path == "data/shards/val/00000.tar"

    (unit,) = {path.parent for path in (layout.work / "query").rglob("gallery.npy")}
    before = file_sha256(unit / "gallery.npy"), (unit / "gallery.npy").stat().st_mtime_ns
    assert search(params, layout, "plain", text, top=4) == hits
    assert (file_sha256(unit / "gallery.npy"), (unit / "gallery.npy").stat().st_mtime_ns) == before
    assert np.load(io.BytesIO((unit / "gallery.npy").read_bytes())).shape == (12, 1, world.DIMENSIONS)

    both = search(params, layout, "plain", text, top=20, index="all")
    assert len(both) == 12 + 3
    assert {hit.path for hit in both} == {"data/shards/val/00000.tar", "data/shards/train/00000.tar"}
    search(params, layout, "other", text, top=1)
    assert len(list((layout.work / "query").rglob("gallery.npy"))) == 3


def test_a_text_that_the_store_lacks_goes_through_the_llm(run, byte_tokenizer):
    """The store's centring holds for it as well: the mean that is subtracted is that of the raw facet."""
    from flame_core.text.encoder import TextEncoder
    from flame_core.vision.image_encoder import load_encoder

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
    from flame_core.vision.image_encoder import load_encoder

    params, layout = run
    folder = layout.model("other")
    tower = TextTowerParams(width=16, depth=1, heads=2, max_tokens=32)
    config = json.loads((folder / "config.json").read_text())
    config["recipe"]["text_tower"] = tower.model_dump()
    write_json(folder / "config.json", {**config, "text_facets": {"raw": 1, "short": 2}})
    byte_tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    vocabulary = transformer.Captions(folder / TOKENIZER, tower).end + 1
    save_file(transformer.TextTower(tower, vocabulary, world.DIMENSIONS).state_dict(), folder / TEXT_WEIGHTS)
    write_digests(folder)
    z = load_encoder(folder, "cpu").encode([world.jpeg(index) for index in range(12)])
    for text in ("Eine grüne Sache.", "something nobody wrote"):
        scores = z @ transformer.TrainedTexts(folder, "cpu").lookup("raw", [text])[0, 0]
        hits = search(params, layout, "other", text, top=12)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    (folder / TEXT_WEIGHTS).unlink()
    write_digests(folder)
    with pytest.raises(InputError, match=r"models/other is not a usable model .*run `flame train` for it"):
        search(params, layout, "other", "Eine grüne Sache.", top=1)
    with pytest.raises(InputError, match="models/other is not a usable model"):
        evaluate.run(params, layout, "other")


def llm_of(params: Params, layout: Layout, byte_tokenizer) -> Path:
    folder = layout.llm / params.llm.name
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    write_json(folder / "source.json", {"files": {}})
    return folder


def test_a_text_needs_the_llm_once(run, byte_tokenizer):
    params, layout = run
    llm = llm_of(params, layout, byte_tokenizer)
    first = search(params, layout, "plain", "something nobody wrote", top=12)
    shutil.rmtree(llm)
    assert search(params, layout, "plain", "something nobody wrote", top=12) == first
    with pytest.raises(InputError, match="this text needs the frozen LLM tiny"):
        search(params, layout, "plain", "something else", top=1)
    with pytest.raises(InputError, match="this text needs the frozen LLM tiny"):
        search(params, layout, "other", "something nobody wrote", top=1)  # other weights


def test_a_folder_is_searched_once_it_has_vectors(run, tmp_path):
    """Also with a tower that has facets; and never with the vectors of another model."""
    params, layout = with_facet_tokens(*run)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        (folder / f"{index:02}.jpg").write_bytes(world.jpeg(index))
    with pytest.raises(InputError, match=r"run `flame embed-images .*pictures --model data/models/plain` first"):
        search(params, layout, "plain", "Eine grüne Sache.", index="pictures")
    plain, other = (model_of_run(params, layout, name) for name in ("plain", "other"))
    made = embed_folder(layout, plain, folder)
    embed_folder(layout, other, folder)
    for name in ("plain", "other"):
        for facets in (False, True):
            text = "Thing number 3." if facets else "Eine grüne Sache."
            hits = search(params, layout, name, text, index="pictures", top=12, facets=facets)
            expected = search(params, layout, name, text, top=12, facets=facets)  # the same pictures
            assert [world.KEYS[int(hit.key[:2])] for hit in hits] == [hit.key for hit in expected]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
            assert hits[0].path == str(folder / hits[0].key)
    assert search(params, layout, "plain", "Eine grüne Sache.", index=str(made.file), top=1)
    with pytest.raises(InputError, match="was made with data/models/plain"):
        search(params, layout, "other", "Eine grüne Sache.", index=str(made.file))
    with pytest.raises(InputError, match="--index nowhere: write held-out, all, a folder"):
        search(params, layout, "plain", "Eine grüne Sache.", index="nowhere")


def test_a_picture_finds_itself_first_and_is_near(run, tmp_path):
    params, layout = run
    plain = model_of_run(params, layout, "plain")
    (tmp_path / "asked.jpg").write_bytes(world.jpeg(4))
    found = ask_picture(params, layout, plain, tmp_path / "asked.jpg", top=3)
    assert found.hits[0].key == world.KEYS[4] and found.hits[0].score == pytest.approx(1, abs=1e-5)
    assert found.hits[0].caption == f"A {world.COLOURS[4]} thing."
    assert found.nearness.near and found.nearness.chance is not None
    (tmp_path / "asked.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="image_unreadable"):
        ask_picture(params, layout, plain, tmp_path / "asked.jpg")


def test_what_is_asked_is_a_picture_if_it_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "bird").write_bytes(png(1))
    assert picture_asked("a.png") == Path("a.png")
    assert picture_asked("bird") == Path("bird")
    assert picture_asked("a bird") is None and picture_asked("x" * 10_000) is None
    assert picture_asked("a text about logo.png") is None
    with pytest.raises(InputError, match="is not UTF-8, and names no file"):
        picture_asked("a bird \udcff")
    with pytest.raises(InputError, match=r"'b\.png' looks like the path of a picture, but there is no such file"):
        picture_asked("b.png")


def test_nothing_is_asked_with_an_empty_text(run):
    params, layout = run
    with pytest.raises(InputError, match="the text is empty"):
        ask_text(params, layout, model_of_run(params, layout, "plain"), "  ")
