"""A model that was trained on texts of an LLM with adapters: trained, asked, packed and served with these adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.measuring.held_out import measure
from flame_core.model.locate import find_model, model_of_run
from flame_core.params import Params
from flame_core.serving.package import package_files
from flame_core.serving.predictor import LLM_VARIABLE, Predictor
from flame_core.stages import adapt_llm, embed, train
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm_adapter import ADAPTER_FILES, PACKED, adapter_digest
from flame_core.tracking.provenance import datasets as datasets_of
from flame_core.tracking.stage_metrics import adapter_metrics
from tests.bits import put_back
from tests.stages.adapted_world import adapted_world
from tests.training.world import recipe

NAME, UNSEEN = "flame", ["a text that nobody has embedded", "ein Text"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> tuple[Params, Layout]:
    """A project with a trained model."""
    params, layout = adapted_world(tmp_path_factory.mktemp("models"), byte_tokenizer)
    trained = {NAME: recipe(epochs=1, warmup_steps=0, gates={"max_loss_ratio": 100.0})}
    params = params.model_copy(update={"train": trained, "recipes": [NAME]})
    adapt_llm.run(params, layout)
    embed.run(params, layout)
    train.run(params, layout, NAME)
    return params, layout


@pytest.fixture
def package(world, tmp_path) -> Path:
    """The packaged model."""
    params, layout = world
    side = model_of_run(params, layout, NAME).side
    files, contents = package_files(params, layout, NAME, side, [], "")
    for name, path in files.items():
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / "package" / name)
    for name, content in contents.items():
        (tmp_path / "package" / name).write_bytes(content)
    return tmp_path / "package"


def test_the_model_and_its_record_name_the_adapters(world):
    params, layout = world
    digest = adapter_digest(layout.llm_adapter)
    config = json.loads((layout.model(NAME) / "config.json").read_bytes())
    assert config["llm"]["adapter"] == digest
    (embeddings,) = [each for each in datasets_of(params, layout) if each["name"] == "embeddings"]
    assert json.loads(embeddings["source"])["llm"]["adapter"] == digest
    before, after = adapter_metrics(layout.llm_adapter)
    assert after["adapt/held_out/loss"] < before["adapt/held_out/loss"]
    assert {"adapt/de/recall_at_3", "adapt/en/recall_at_1"} <= set(before) == set(after)


def test_texts_are_read_with_the_adapters_wherever_they_are_asked(world, package, monkeypatch):
    params, layout = world
    expected = TextEncoder.open(params, layout).encode("raw", UNSEEN)[:, 0]
    plain = params.model_copy(update={"adapt_llm": None})
    assert np.abs(expected - TextEncoder.open(plain, layout).encode("raw", UNSEEN)[:, 0]).max() > 0.02
    np.testing.assert_allclose(model_of_run(params, layout, NAME).encode_text(UNSEEN), expected, atol=1e-5)
    monkeypatch.setenv(LLM_VARIABLE, str(layout.llm / "tiny"))
    np.testing.assert_allclose(Predictor(package).texts(UNSEEN), expected, atol=1e-5)
    np.testing.assert_allclose(find_model(package, layout.root).encode_text(UNSEEN), expected, atol=1e-5)


def test_a_package_without_its_adapters_or_with_others_reads_no_text(world, package, monkeypatch):
    _, layout = world
    monkeypatch.setenv(LLM_VARIABLE, str(layout.llm / "tiny"))
    config = package / PACKED / ADAPTER_FILES[1]
    write_json(config, {**json.loads(config.read_bytes()), "lora_alpha": 99.0})
    with pytest.raises(InputError, match=r"does not hold the adapters that this model's LLM had in training"):
        Predictor(package).texts(UNSEEN)
    shutil.rmtree(package / PACKED)
    with pytest.raises(InputError, match=r"does not hold the adapters .*run `flame evaluate`"):
        Predictor(package).texts(UNSEEN)


def test_a_model_of_the_llm_without_adapters_is_not_measured_on_these_texts(world):
    params, layout = world
    held_out = measure(params, layout, layout.model(NAME))
    assert held_out.evaluation.languages["de"].ceiling == pytest.approx(
        json.loads((layout.llm_adapter / "ceilings.json").read_bytes())["after"]["de"]
    )
    path = layout.model(NAME) / "config.json"
    config = json.loads(path.read_bytes())
    with put_back(path):
        write_json(path, {**config, "llm": {k: v for k, v in config["llm"].items() if k != "adapter"}})
        with pytest.raises(InputError, match=r"embeddings that differ in llm; run `flame train flame`"):
            measure(params, layout, layout.model(NAME))
