"""Captions as sentences from the store to a served model: a recipe of sentences never meets a facet's vector."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from flame_core.captions.table import read_captions
from flame_core.data.shards import shard_names
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.measuring.held_out import measure
from flame_core.measuring.text_side import texts_of
from flame_core.params import Params
from flame_core.params.evaluation import BenchmarksParams
from flame_core.serving.model_card import model_card
from flame_core.serving.package import package_files
from flame_core.serving.predictor import LLM_VARIABLE, Predictor
from flame_core.stages import embed, embed_texts, evaluate, train
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import SOURCE
from flame_core.text.manifest import read_manifest
from flame_core.text.store import Drawn, TextStore, TrainStore, unit
from flame_core.text.tensor_file import TensorFile
from flame_core.tracking.provenance import datasets as datasets_of
from flame_core.verification import write_digests
from tests.search.runs import search
from tests.stages.pipeline import captioned_project, tree
from tests.suite import datasets
from tests.training.world import recipe

READING = {"read": "mean", "layer": 3, "final_norm": True, "bidirectional": True, "prompt": "Query: {caption}"}
UNSEEN = "a text that nobody has embedded"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerBase) -> tuple[Params, Layout]:
    """A project with a store of facets only, and recipes of both readings; a benchmark lies beside it."""
    params, layout = captioned_project(tmp_path_factory.mktemp("project"), byte_tokenizer, 40)
    (layout.llm / "tiny" / SOURCE).write_text(json.dumps({"name": "tiny", "source": "path:x", "files": {}}))
    write_digests(layout.llm)
    datasets.crossmodal(layout.root / "datasets/many")
    datasets.definition_file(
        layout.root / "many.yaml", {"kind": "retrieval"}, "crossmodal3600", "many", prompt="facets", languages=["en"]
    )
    options = {"epochs": 2, "gates": {"max_loss_ratio": 100.0}}
    recipes = {"flame": recipe(**options), "lift": recipe(reading="sentence", **options)}
    gates = params.evaluate.gates.model_copy(update={"min_recall_over_chance": 0.0})
    options = params.evaluate.model_copy(update={"gates": gates})
    return params.model_copy(update={"train": recipes, "recipes": list(recipes), "evaluate": options}), layout


def reading(params: Params, **changes: Any) -> Params:
    """The same params with sentences, and other changes to `text`."""
    content = {**params.text.model_dump(), "sentence": READING, **changes}
    return params.model_copy(update={"text": type(params.text).model_validate(content)})


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.setenv("FLAME_WORKERS", "1")


@contextmanager
def no_facets() -> Iterator[None]:
    """Whoever asks the store or the LLM for a facet fails."""
    lookup, tokenise = TextStore.lookup, TextEncoder.tokenise

    def only_sentences(
        self: TextStore, kind: str, texts: Sequence[str], reading: Any = "facets", **how: bool
    ) -> np.ndarray:
        assert reading == "sentence", f"facets of {kind} were looked up"
        return lookup(self, kind, texts, reading, **how)

    def only_as_sentences(self: TextEncoder, kind: str, texts: Sequence[str]) -> Any:
        assert kind == "sentence", f"facets of {kind} were computed"
        return tokenise(self, kind, texts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TextStore, "lookup", only_sentences)
        patched.setattr(TextEncoder, "tokenise", only_as_sentences)
        yield


def test_sentences_lie_beside_facets_that_stay_as_they_were(project: tuple[Params, Layout]) -> None:
    plain, layout = project
    embed.run(plain, layout)
    before = tree(layout.embeddings)
    train.run(plain, layout, "flame")
    weights = tree(layout.model("flame"))
    trainings = len(list((layout.work / "train").glob("[!.]*")))

    params = reading(plain)
    embed.run(params, layout)
    after = tree(layout.embeddings)
    shared = [name for name in before if name.endswith((".safetensors", ".parquet")) or name == "train/manifest.json"]
    assert {name: after[name] for name in shared} == {name: before[name] for name in shared}
    train.run(params, layout, "flame")
    assert tree(layout.model("flame")) == weights
    assert len(list((layout.work / "train").glob("[!.]*"))) == trainings

    store = TrainStore(layout.embeddings)
    assert store.facets == ["raw/1", "short/1", "short/2", "short/3", "raw/sentence", "short/sentence"]
    encoder = TextEncoder.open(params, layout)
    for shard in shard_names(layout.shards, "train"):
        for caption in read_captions(layout.captions / Path(shard).with_suffix(".parquet")):
            slot = {"raw": 4, "short": 5}.get(caption.kind)
            if slot is not None:
                t = store.read([Drawn(shard, caption.row, [slot])])[0]
                np.testing.assert_allclose(t, encoder.encode("sentence", [caption.text])[0], atol=1e-3)
    with pytest.raises(ValueError, match="cannot be read together"):
        store.read([Drawn("train/00000.tar", 0, [0, 4])])


def test_new_texts_are_added_to_both_readings_byte_for_byte(project: tuple[Params, Layout]) -> None:
    params, layout = reading(project[0]), project[1]
    embed.run(params, layout)
    options = params.evaluate.model_copy(update={"benchmarks": BenchmarksParams(names=["many.yaml"])})
    wanted = params.model_copy(update={"evaluate": options})
    embed_texts.run(wanted, layout)
    quick = tree(layout.embeddings)
    assert "texts/benchmark-many-00000-sentence.safetensors" in quick
    embed.run(wanted, layout)
    assert tree(layout.embeddings) == quick
    embed_texts.run(params, layout)
    with pytest.raises(InputError, match="sentence"):
        embed_texts.run(reading(params, sentence={"read": "last"}), layout)


@pytest.mark.parametrize("center", ["none", "per_facet"])
def test_a_sentence_model_is_measured_asked_and_served_with_sentences_only(
    project: tuple[Params, Layout], center: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = reading(project[0], center=center), project[1]
    options = params.evaluate.model_copy(update={"benchmarks": BenchmarksParams(names=["many.yaml"])})
    params = params.model_copy(update={"evaluate": options})
    embed.run(params, layout)
    store = TextStore.open(layout.embeddings)
    t = TextEncoder.open(params, layout).encode("sentence", [UNSEEN])[:, 0]
    if center != "none":
        t = unit(t - mean_of_raw_sentences(layout))
    with no_facets():
        train.run(params, layout, "lift")
        config = json.loads((layout.model("lift") / "config.json").read_text())
        assert config["facets"] == ["raw/sentence", "short/sentence"]
        assert (config["sentence"]["read"], config["layer"]) == ("mean", 3)
        evaluate.run(params, layout, "lift")
        assert "many" in (layout.report("lift") / "benchmarks.json").read_text()

        side = texts_of(layout.model("lift"), params, layout, store)
        for kind in ("raw", "short", "long", "raw@reference"):
            assert (side.count(kind), side.dim) == (1, 64)
        np.testing.assert_allclose(side.encode("raw", [UNSEEN])[:, 0], t, atol=1e-3)

        held_out = measure(params, layout, layout.model("lift"))
        scores = held_out.evaluation.z @ t[0]
        hit = search(params, layout, "lift", UNSEEN, top=1)[0]
        assert hit.key == held_out.evaluation.keys[int(np.argmax(scores))]
        assert hit.score == pytest.approx(float(scores.max()), abs=1e-3)
        with pytest.raises(ParamsError, match="reads a text as a whole, without facets"):
            search(params, layout, "lift", UNSEEN, top=1, facets=True)

        files, contents = package_files(params, layout, "lift", held_out.texts, [], "")
        for name, path in files.items():
            (tmp_path / name).write_bytes(path.read_bytes())
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        monkeypatch.setenv(LLM_VARIABLE, str(layout.llm / "tiny"))
        texts = [UNSEEN, "ein Satz", "?", held_out.evaluation.languages["en"].pairing.texts[0]]
        served = Predictor(tmp_path).texts(texts)
        np.testing.assert_allclose(served, [side.encode("raw", [text])[0, 0] for text in texts], atol=2e-3)
    with no_facets(), pytest.raises(AssertionError, match="facets of raw were looked up"):
        train.run(params, layout, "flame")
        evaluate.run(params, layout, "flame")


def mean_of_raw_sentences(layout: Layout) -> np.ndarray:
    """[D], from the vectors as they are stored."""
    vectors = [
        TensorFile(path).read("embeddings", slice(None))[:, 0]
        for path in sorted((layout.embeddings / "train/sentence").glob("[0-9]*.safetensors"))
    ]
    return np.concatenate(vectors).mean(axis=0)


def test_another_definition_of_sentences_is_another_space(project: tuple[Params, Layout]) -> None:
    params, layout = reading(project[0]), project[1]
    embed.run(params, layout)
    train.run(params, layout, "lift")
    other = reading(project[0], sentence={"read": "last"})
    with pytest.raises(InputError, match="sentence: the store has"):
        measure(other, layout, layout.model("lift"))
    embed.run(other, layout)
    with pytest.raises(InputError, match="embeddings that differ in sentence; run `flame train lift`"):
        measure(other, layout, layout.model("lift"))
    embed.run(project[0], layout)
    assert not (layout.embeddings / "train/sentence").exists()
    assert "sentence" not in read_manifest(layout.embeddings)
    with pytest.raises(InputError, match="no vectors of the sentence reading: run `flame embed`"):
        train.run(project[0], layout, "lift")


def test_the_card_and_the_record_of_a_training_name_the_reading(project: tuple[Params, Layout]) -> None:
    params, layout = reading(project[0]), project[1]
    embed.run(params, layout)
    config = {"hidden": 64, "samples": 30, "facets": ["raw/sentence", "short/sentence"]}
    lift, flame = (
        model_card(name, params, config, {}, {"train": 30, "val": 10}, {}, [], []) for name in ("lift", "flame")
    )
    assert "the mean over the tokens at layer 3, frozen, not included" in lift
    assert "hidden states of layer 2, frozen, not included" in flame
    (sentences,) = [each for each in datasets_of(params, layout, "sentence") if each["name"] == "embeddings"]
    (facets,) = [each for each in datasets_of(params, layout) if each["name"] == "embeddings"]
    assert sentences["digest"] != facets["digest"]
    assert json.loads(sentences["source"])["sentence"]["read"] == "mean"
    assert "sentence" not in json.loads(facets["source"])
