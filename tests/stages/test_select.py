"""flame select: selections that a recipe trains on, the same after a kill, steady groups for new data, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.codes import llm_words
from flame_core.codes.code_files import read_codes
from flame_core.codes.codebook import read_codebook
from flame_core.data.key_selection import select as select_keys
from flame_core.data.shards import PictureReader, read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import caption, codes, download, embed, ingest, select, train
from flame_core.text.store import Drawn, TrainStore, unit
from flame_core.verification import verify
from flame_core.vision.image_encoder import load_encoder
from flame_core.vision.tower import ImageTower
from tests.bits import flip
from tests.selections.coded_project import SELECT, coded_project, coding, selecting, small_recipe
from tests.stages.pipeline import tree, write_pairs
from tests.stages.units import computed_by, killed_after


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """A project of 40 drawings whose patches are coded."""
    root = tmp_path_factory.mktemp("select")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = coded_project(root, byte_tokenizer)
        codes.run(coding(params), layout)
        yield params, layout


def keys_of(layout: Layout, name: str) -> list[str]:
    return pq.read_table(layout.selections / f"{name}.parquet").column("key").to_pylist()


def test_selections_are_of_exact_size_nested_and_of_training_samples(world):
    params, layout = world
    select.run(selecting(params), layout)
    index = read_index(layout.shards, "train")
    quarter, half, chance = (keys_of(layout, name) for name in ("quarter", "half", "chance"))
    assert len(quarter) == len(chance) == int(len(index) / 4 + 0.5) and len(half) == int(len(index) / 2 + 0.5)
    assert set(quarter) < set(half)
    assert len(select_keys(index, layout.selections / "half.parquet", layout.shards)) == len(half)
    every = [pq.read_table(path).to_pydict() for path in sorted((layout.selections / "train").glob("*.parquet"))]
    assert sorted(key for table in every for key in table["key"]) == sorted(row.key for row in index)
    cluster = {key: own for table in every for key, own in zip(table["key"], table["cluster"], strict=True)}
    table = pq.read_table(layout.selections / "half.parquet").to_pydict()
    assert table["cluster"] == [cluster[key] for key in table["key"]]
    verify({layout.selections: ["*"]})
    assert {check.name for check in gates.read(layout.selections) if check.passed} == {
        "groups_filled", "groups_balanced", "budgets_met", "captions_distinct",
    }  # fmt: skip


def test_the_page_shows_selections_words_and_clusters_with_pictures(world):
    params, layout = world
    select.run(selecting(params), layout)
    page = (layout.selections / "selections.html").read_text("utf-8")
    about = json.loads((layout.selections / "selections.json").read_text())["selections"]
    filled = len(set(pq.read_table(layout.selections / "half.parquet").column("cluster").to_pylist()))
    assert about["half"]["clusters"] == filled and about["all"]["words"] == 1.0
    assert page.count("<article") == about["all"]["clusters"] and page.count("data:image/jpeg") > 10
    assert "drawing" in page and "quarter: left" in page and "hit right" in page
    assert 1 < about["half"]["perplexity"] <= 12 and 0 <= about["half"]["gini"] < 1


def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world):
    params, layout = world
    select.run(selecting(params), layout)
    first = tree(layout.selections)
    for after in range(0, 9, 2):
        shutil.rmtree(layout.work / "select")
        shutil.rmtree(layout.selections)
        killed_after(after, lambda: select.run(selecting(params), layout))
        assert not layout.selections.exists()
        select.run(selecting(params), layout)
        assert tree(layout.selections) == first
    flip(next((layout.work / "select").glob("*/groups.safetensors")), 90, 2)
    select.run(selecting(params), layout)
    assert tree(layout.selections) == first


def test_a_recipe_trains_on_a_selection_and_again_only_if_its_keys_change(world):
    params, layout = world

    def trained(params: Params) -> dict:
        student = small_recipe(
            gates={"max_loss_ratio": 100.0}, epochs=1, kinds=["raw"], selection="data/selections/half.parquet"
        )
        train.run(params.model_copy(update={"recipes": ["small"], "train": {"student": student}}), layout, "student")
        return json.loads((layout.model("student") / "config.json").read_text())

    select.run(selecting(params), layout)
    first = trained(params)
    assert first["samples"] == len(keys_of(layout, "half"))
    more = {**SELECT["selections"], "capped": {"share": 0.3, "mode": "capped"}}
    select.run(selecting(params, selections=more), layout)  # another selection beside it
    assert trained(params)["data"]["selection"] == first["data"]["selection"]
    other = {"half": {"share": 0.5, "seed": 1}}
    select.run(selecting(params, selections=other), layout)
    assert trained(params)["data"]["selection"] != first["data"]["selection"]


def test_a_training_refuses_selections_with_a_failed_check(world):
    params, layout = world
    select.run(selecting(params, gates={"max_over_mean": 1.0001}), layout)
    student = small_recipe(kinds=["raw"], selection="data/selections/half.parquet")
    with pytest.raises(GateError, match="groups_balanced"):
        train.run(params.model_copy(update={"train": {"student": student}}), layout, "student")


def test_frozen_groups_keep_old_samples_where_they_were(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    params, layout = coded_project(tmp_path, byte_tokenizer)
    codes.run(coding(params), layout)
    select.run(selecting(params), layout)
    shutil.copytree(layout.codes, tmp_path / "kept-codes")
    shutil.copytree(layout.selections, tmp_path / "kept")

    def groups() -> dict[str, int]:
        tables = [pq.read_table(path).to_pydict() for path in sorted((layout.selections / "train").glob("*.parquet"))]
        return {key: own for each in tables for key, own in zip(each["key"], each["cluster"], strict=True)}

    before = groups()
    write_pairs(tmp_path / "pairs", range(40, 44))
    for stage in (download, ingest, caption, embed):
        stage.run(params, layout)
    grown = coding(params, frozen="kept-codes")
    codes.run(grown, layout)
    select.run(selecting(grown, frozen="kept"), layout)
    after = groups()
    assert len(after) > len(before) and all(after[key] == before[key] for key in before.keys() & after.keys())
    (steady,) = (check for check in gates.read(layout.selections) if check.name == "groups_steady")
    assert f"{len(after) - len(before)} new samples" in steady.description
    assert (layout.selections / "centroids.safetensors").read_bytes() == (
        tmp_path / "kept/centroids.safetensors"
    ).read_bytes()
    assert computed_by(lambda: select.run(selecting(grown, frozen="kept"), layout)) == []
    codes.run(coding(params, seed=7), layout)
    with pytest.raises(InputError, match="holds clusters of another codebook"):
        select.run(selecting(coding(params, seed=7), frozen="kept"), layout)


def test_bad_input_is_refused_with_what_to_do(world, tmp_path):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `select`"):
        select.run(params, layout)
    with pytest.raises(
        InputError, match=r"select\.selections\.x: 5,000 samples, and the training split has \d+; lower"
    ):
        select.run(selecting(params, selections={"x": {"samples": 5000}}), layout)
    with pytest.raises(InputError, match=r"select\.clusters is 300, and the training split has \d+ samples"):
        select.run(selecting(params, clusters=300), layout)
    with pytest.raises(ParamsError, match=r"select\.dims 500: \d+ vectors of 12 dimensions have at most 12"):
        select.run(selecting(params, dims=500), layout)
    with pytest.raises(InputError, match="holds no clusters; name a folder"):
        select.run(selecting(params, frozen=str(tmp_path)), layout)
    select.run(selecting(params), layout)
    shutil.copytree(layout.selections, tmp_path / "of-histograms")
    select.run(selecting(params, descriptor="code_numbers"), layout)
    assert json.loads((layout.selections / "selections.json").read_text())["descriptor"] == "code_numbers"
    with pytest.raises(InputError, match=r"clusters of the descriptor histogram, and select\.descriptor is code"):
        select.run(selecting(params, descriptor="code_numbers", frozen=str(tmp_path / "of-histograms")), layout)
    with pytest.raises(ValueError, match="remove min_per_cluster"):
        selecting(params, selections={"x": {"share": 0.5, "mode": "random", "min_per_cluster": 1}})
    file = next((layout.codes / "train").glob("*.parquet"))
    before = file.read_bytes()
    file.unlink()
    file.write_bytes(before)
    flip(file, 200, 3)
    try:
        with pytest.raises(InputError, match="is damaged"):
            select.run(selecting(params), layout)
    finally:
        file.write_bytes(before)


def test_more_clusters_than_kinds_of_pictures_are_counted_and_named(world):
    params, layout = world
    index = read_index(layout.shards, "train")
    select.run(selecting(params, clusters=len(index), gates={"max_empty_fraction": 0.0}), layout)
    filled = gates.read(layout.selections)[0]
    sizes = np.bincount(
        np.concatenate(
            [
                pq.read_table(path).column("cluster").to_numpy()
                for path in (layout.selections / "train").glob("*.parquet")
            ]
        ),
        minlength=len(index),
    )
    assert filled.keys == [f"cluster {number}" for number in np.flatnonzero(sizes == 0)[:20]]
    assert filled.passed == (not filled.keys)


def test_the_words_of_the_llm_are_a_codebook_in_which_a_patch_has_the_nearest_word(world, monkeypatch):
    """The tiny LLM's tokens are bytes, so words are given here; without them it is refused."""
    params, layout = world
    wordy = coding(params, codebook="words", codes=8)
    with pytest.raises(InputError, match="0 words of the captions are a token of this LLM"):
        codes.run(wordy, layout)
    words = ["drawing", "number", "red", "blue", "round", "square"]
    vectors = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    monkeypatch.setattr(llm_words, "read_words", lambda params, layout, most: llm_words.WordVectors(words, vectors))
    codes.run(wordy, layout)
    book = read_codebook(layout.codes)
    assert book.words == words and book.basis is None and book.about["tower"]["tokens"] == "projected"
    index, reader = read_index(layout.shards, "train"), PictureReader(layout.shards)
    tokens = load_encoder(layout.model("small"), "cpu").encode_with(
        ImageTower.patch_vectors, [reader.jpeg(row) for row in index]
    )
    flat = unit(tokens.reshape(-1, 64).astype(np.float64))
    directions = unit(unit(vectors.astype(np.float64)) - unit(vectors.astype(np.float64)).mean(axis=0))
    similar = unit(flat - flat.mean(axis=0)) @ directions.T
    found = np.concatenate([read_codes(path).codes for path in sorted((layout.codes / "train").glob("*.parquet"))])
    own = similar[np.arange(len(similar)), found.ravel().astype(int)]
    np.testing.assert_allclose(own, similar.max(axis=1), atol=5e-3)
    select.run(selecting(wordy), layout)
    assert any(word in (layout.selections / "selections.html").read_text("utf-8") for word in words[2:])
    other = params.model_copy(update={"llm": params.llm.model_copy(update={"name": "another"})})
    with pytest.raises(InputError, match=r"small was trained into the space of 'tiny', and llm\.name is 'another'"):
        codes.run(coding(other, codebook="words"), layout)


def test_a_similarity_filter_is_a_switch_of_its_own(world):
    """Scores are <z, mean raw vector>; a filtered selection holds only the better half, and its budget is of all."""
    params, layout = world
    similar = coding(params, similarity=True)
    codes.run(similar, layout)
    index, reader = read_index(layout.shards, "train"), PictureReader(layout.shards)
    places = [(row.shard, row.row) for row in index]
    scores = Sidecar(layout.similarity).read(places).numpy()
    z = load_encoder(layout.model("small"), "cpu").encode([reader.jpeg(row) for row in index])
    store = TrainStore(layout.embeddings)
    raw = [slot for slot, name in enumerate(store.facets) if name.startswith("raw/")]
    t = store.read([Drawn(*place, raw) for place in places]).float().numpy().mean(axis=1)
    np.testing.assert_allclose(scores, (z * unit(t)).sum(axis=1), atol=1e-3)
    filtered = {"plain": {"share": 0.25}, "best": {"share": 0.25, "filter": {"keep": 0.5}}}
    select.run(selecting(similar, selections=filtered), layout)
    by_key = dict(zip([row.key for row in index], scores.tolist(), strict=True))
    best = [by_key[key] for key in keys_of(layout, "best")]
    assert len(best) == len(keys_of(layout, "plain")) and min(best) >= np.median(scores) - 1e-6
    with pytest.raises(
        InputError, match=r"selections\.x: \d+ samples, and its filter keeps \d+ of \d+; lower the budget"
    ):
        too_many = {"samples": len(index) // 2, "filter": {"keep": 0.3}}
        select.run(selecting(similar, selections={"x": too_many}), layout)
    with pytest.raises(ValueError, match=r"share 0\.5 of all samples is more than filter\.keep 0\.3 leaves"):
        selecting(similar, selections={"x": {"share": 0.5, "filter": {"keep": 0.3}}})
    missing = {"x": {"share": 0.2, "filter": {"keep": 0.3, "scores": "data/sidecars/nothing"}}}
    with pytest.raises(InputError, match="nothing is missing"):
        select.run(selecting(similar, selections=missing), layout)
    with pytest.raises(ValueError, match="which a timm backbone is not"):
        coding(params, similarity=True, tower={"timm": "vit_tiny_patch16_224"})
