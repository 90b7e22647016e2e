"""A recipe with adapters through the stages: trained on the run's LLM, measured, packed, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flame_core.digest import value_digest, write_json
from flame_core.errors import InputError
from flame_core.export.about import About
from flame_core.export.formats import export
from flame_core.export.subject import subject_of
from flame_core.layout import Layout
from flame_core.lexical.adapted_texts import AdaptedTexts
from flame_core.lexical.lexicon import count_words
from flame_core.measuring.held_out import measure
from flame_core.model.locate import model_of_run
from flame_core.params import LexicalParams, Params
from flame_core.params.text import SentenceParams
from flame_core.planning.plan import plan
from flame_core.planning.start import given
from flame_core.serving.package import package_files
from flame_core.serving.predictor import LLM_VARIABLE, Predictor
from flame_core.stages import embed, lexical, train
from flame_core.text.llm import SOURCE
from flame_core.text.llm_adapter import ADAPTER_FILES
from flame_core.training.preparation import prepare
from flame_core.verification import write_digests
from tests.bits import put_back
from tests.planning.trainings import planned, planned_without
from tests.search.runs import ask_text
from tests.stages.pipeline import captioned_project, tree
from tests.training.adapted import LORA
from tests.training.worded import worded_recipe

NAME, TEXTS = "words", ["drawing number 3", "a boat"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """A run with one recipe, which trained adapters on its LLM."""
    root = tmp_path_factory.mktemp("adapted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        patch.setenv("FLAME_TRACKING_URI", "off")
        params, layout = captioned_project(root, byte_tokenizer, 24)
        sentence = SentenceParams(read="last", final_norm=True, layer=3, prompt="say {caption} :")
        recipe = worded_recipe(
            lora=LORA,
            reading="sentence",
            kinds=["raw"],
            texts_per_image=1,
            sidecars={"lexical": "data/sidecars/lexical"},
            gates={"max_loss_ratio": 100.0},
        )
        params = params.model_copy(
            update={
                "recipes": [NAME],
                "train": {NAME: recipe},
                "evaluate": params.evaluate.model_copy(update={"languages": []}),
                "text": params.text.model_copy(update={"sentence": sentence}),
                "lexical": LexicalParams.model_validate({"top": 6, "rule": {"min_letters": 1}}),
            }
        )
        embed.run(params, layout)
        lexical.run(params, layout)
        train.run(params, layout, NAME)
        yield params, layout


def test_only_captions_of_the_recipe_s_kinds_are_held_in_memory(world):
    params, layout = world
    assert params.text.train_kinds == ["raw", "short"]
    captions = prepare(params, layout, NAME).captions
    assert captions is not None and captions.text.train_kinds == ["raw"]


def test_a_plan_is_the_same_before_there_are_words(world):
    params, layout = world
    chosen = params.lexical.model_copy(update={"words": count_words(layout.lexical)})
    params = params.model_copy(update={"lexical": chosen})
    found = planned(params, layout)
    assert "steps" in found[f"training: {NAME}"]
    assert planned_without(params, layout, layout.lexical) == found


def packed(params: Params, layout: Layout, folder: Path) -> Path:
    """The packaged model in a new folder."""
    side = model_of_run(params, layout, NAME).side
    folder.mkdir()
    files, contents = package_files(params, layout, NAME, side, [], "")
    for name, path in files.items():
        (folder / name).write_bytes(path.read_bytes())
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def test_the_model_holds_adapters_and_no_llm(world):
    _, layout = world
    names = {path.name for path in layout.model(NAME).iterdir()}
    assert names >= {*ADAPTER_FILES, "lexicon.safetensors", "words.parquet"} and "text.safetensors" not in names
    assert (layout.model(NAME) / ADAPTER_FILES[0]).stat().st_size < 100_000
    config = json.loads((layout.model(NAME) / "config.json").read_text())
    adapter = json.loads((layout.model(NAME) / ADAPTER_FILES[1]).read_text())
    assert config["recipe"]["lora"]["rank"] == adapter["r"] == 2
    assert config["llm"]["digest"] == adapter["revision"]


def test_the_same_training_is_the_same_bytes(world):
    params, layout = world
    first = tree(layout.model(NAME))
    for unit in (layout.work / "train").glob("[!.]*"):
        unit.rename(layout.work / f"gone-{unit.name}")
    train.run(params, layout, NAME)
    assert tree(layout.model(NAME)) == first


def test_texts_are_read_by_the_llm_with_the_adapters_wherever_they_are_asked(world, tmp_path, monkeypatch):
    params, layout = world
    model = model_of_run(params, layout, NAME)
    assert isinstance(model.side, AdaptedTexts) and model.lexicon is not None
    t = model.encode_text(TEXTS)
    assert t.shape == (2, len(model.lexicon.vocabulary)) and (t > 0).all()
    monkeypatch.setenv(LLM_VARIABLE, str(layout.llm / "tiny"))
    predictor = Predictor(packed(params, layout, tmp_path / "package"))
    np.testing.assert_allclose(predictor.texts(TEXTS), t, atol=1e-6)
    other = tmp_path / "other"
    other.mkdir()
    for path in (layout.llm / "tiny").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    write_json(other / SOURCE, {"name": "other", "source": "path:y", "files": {"model.safetensors": "1"}})
    monkeypatch.setenv(LLM_VARIABLE, str(other))
    with pytest.raises(InputError, match=r"adapters belong to the LLM tiny .*, and the LLM here has other files"):
        Predictor(tmp_path / "package").texts(TEXTS)
    (tmp_path / "package" / ADAPTER_FILES[0]).unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors missing"):
        Predictor(tmp_path / "package")


def test_it_is_measured_by_these_texts(world):
    params, layout = world
    found = measure(params, layout, layout.model(NAME))
    assert isinstance(found.texts, AdaptedTexts)
    assert any(name.startswith("words") for name in found.evaluation.metrics), found.evaluation.metrics.keys()


def test_an_export_says_that_it_lacks_the_adapters(world, tmp_path):
    subject = subject_of(model_of_run(*world, NAME), None)
    lacks = export(subject, About(summary="", body=""), "onnx", tmp_path / "out")
    assert any("adapters of the LLM are not in this format" in line for line in lacks)


def test_its_cost_is_planned(world):
    params, layout = world
    section = plan(params, layout, given(params, layout, 24, {}), tflops=1.0, processes=1)[f"training: {NAME}"]
    assert section["text tower"].endswith("a picture has 1 caption of 0.2 G forward, 1 forward and a backward")
    assert "text tower 48.0 MB" in section["of that"]


def test_a_query_says_its_words_and_whether_anything_is_near(world):
    params, layout = world
    model = model_of_run(params, layout, NAME)
    found = ask_text(params, layout, model, "a boat", top=3)
    assert len(found.hits) == 3 and all(hit.words for hit in found.hits)
    assert found.hits[0].score == pytest.approx(
        (found.gallery.views[:, 0] @ model.encode_text("a boat")[0]).max(), abs=1e-5
    )
    assert found.nearness.chance is not None, str(found.nearness)


def test_another_llm_than_the_embeddings_were_made_with_is_refused(world):
    params, layout = world
    path = layout.llm / "tiny" / SOURCE
    with put_back(path):
        write_json(path, {"name": "tiny", "source": "path:x", "files": {"model.safetensors": "2"}})
        write_digests(layout.llm)
        assert value_digest({"model.safetensors": "2"}) != value_digest({"model.safetensors": "0"})
        with pytest.raises(InputError, match="another LLM than the embeddings were made with"):
            train.run(params, layout, NAME)
    write_digests(layout.llm)
