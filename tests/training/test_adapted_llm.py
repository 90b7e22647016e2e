"""The LLM with adapters against the frozen one, against `peft`, and as the text side of a model."""

from __future__ import annotations

import builtins
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_core.digest import write_json
from flame_core.errors import InputError, ResourceError
from flame_core.lexical.adapted_texts import AdaptedTexts
from flame_core.lexical.values import phi
from flame_core.measuring.text_side import side_of
from flame_core.params import LoraParams
from flame_core.text.adapter import Adapter
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import SOURCE
from flame_core.text.llm_adapter import ADAPTER_WEIGHTS
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import Drawn, unit
from flame_core.training.adapted_llm import PAD, AdaptedLLM, AdaptedSamples, padded
from tests.bits import flip
from tests.training.adapted import (
    DIMS,
    LAYERS,
    LLM,
    LORA,
    NAMES,
    TOP,
    V,
    adapted_recipe,
    adapted_text,
    lexicon,
    sources,
    write_adapted,
)

TEXTS = ["red", "a yellow thing that is longer", "blue one", ""]


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    write_adapted(folder, byte_tokenizer)
    return folder


@pytest.fixture(scope="module")
def encoder(world) -> TextEncoder:
    return TextEncoder.load(world / "llm/tiny", adapted_text(), LLM, "cpu")


def samples_of(folder: Path) -> AdaptedSamples:
    return AdaptedSamples(*sources(folder), LoraParams.model_validate(LORA), NAMES, DIMS)


@pytest.fixture(scope="module")
def model(world) -> tuple[Path, AdaptedLLM]:
    """The folder of a model whose adapters do something, and the tower that was saved there."""
    samples, folder = samples_of(world), world / "model"
    tower = samples.encoder()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    folder.mkdir()
    samples.save(tower, folder)
    for name, content in lexicon(world).files().items():
        (folder / name).write_bytes(content)
    llm = {"name": "tiny", "digest": sources(world)[1].digest}
    recipe = adapted_recipe().model_dump(mode="json")
    write_json(folder / "config.json", {"recipe": recipe, "hidden": DIMS, "words": V, "top_words": TOP, "llm": llm})
    return folder, tower


def ids_of(folder: Path, texts: list[str]) -> torch.Tensor:
    tokens = samples_of(folder)._tokens
    return padded([tokens.encode(text).ids for text in texts])


def test_captions_are_read_by_slot_and_padded_behind(world):
    samples = pickle.loads(pickle.dumps(samples_of(world)))  # as it goes to the processes that load pictures
    read = samples.read([Drawn("train/00000.tar", 3, [1]), Drawn("train/00000.tar", 1, [1])])
    expected = ids_of(world, ["yellow", "green one"])
    assert torch.equal(read[:, 0], expected)
    assert (expected[0] == PAD).sum() == 3 and (expected[1] != PAD).all()


def test_new_adapters_give_the_words_of_the_frozen_llm(world, encoder):
    tower = samples_of(world).encoder()
    words = tower(ids_of(world, TEXTS)).detach().numpy()
    logits = lexicon(world).logits(encoder.encode(SENTENCE, TEXTS)[:, 0])
    np.testing.assert_allclose(words, unit(phi(logits)), atol=2e-4)
    assert np.linalg.norm(words, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_padding_does_not_reach_what_is_read(world, model):
    _, tower = model
    with torch.no_grad():
        together = tower(ids_of(world, TEXTS))
        apart = torch.cat([tower(ids_of(world, [text])) for text in TEXTS])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-6)


def test_a_saved_adapter_reads_as_the_trained_one_and_as_in_peft(world, model, encoder):
    from peft import PeftModel
    from transformers import AutoModel

    folder, tower = model
    with torch.no_grad():
        trained = tower.llm(ids_of(world, TEXTS[:1])).last_hidden_state[0, -1]
        plain = AutoModel.from_pretrained(world / "llm/tiny")
        by_peft = PeftModel.from_pretrained(plain, folder)(ids_of(world, TEXTS[:1])).last_hidden_state[0, -1]
    torch.testing.assert_close(by_peft, trained, rtol=1e-5, atol=1e-5)
    before = encoder.encode(SENTENCE, TEXTS)
    with Adapter.read(folder).on(encoder.sentence_pass.model):
        read = encoder.encode(SENTENCE, TEXTS)
    np.testing.assert_allclose(read[0, 0], unit(trained.numpy()), atol=1e-5)
    assert np.abs(read - before).max() > 0.05
    assert np.array_equal(encoder.encode(SENTENCE, TEXTS), before)  # the LLM is as it was


def test_the_text_side_has_all_words_as_the_training_has(world, model, encoder):
    folder, tower = model
    side = AdaptedTexts.of_package(folder, serving(), lambda: encoder)
    own = side.encode("raw", TEXTS)
    assert own.shape == (len(TEXTS), 1, V) and (own > 0).all()
    with torch.no_grad():
        words = tower(ids_of(world, TEXTS)).numpy()
    np.testing.assert_allclose(own[:, 0], unit(words), atol=2e-3)
    np.testing.assert_allclose(side.lookup("raw", TEXTS[::-1]), own[::-1], atol=2e-3)
    assert set(side.save().files) == {*AdaptedTexts.required()} and len(AdaptedTexts.required()) == 4


def serving() -> dict:
    text = adapted_text()
    return {"text": text.model_dump(mode="json"), "text_facets": ["raw/1"], "facets": NAMES}


def test_the_recipe_of_a_model_says_which_text_side_it_has():
    assert side_of(adapted_recipe().model_dump()) is AdaptedTexts


def test_the_adapter_of_another_llm_is_refused_by_name(world, model, byte_tokenizer, tmp_path):
    from tests.conftest import tiny_llm

    folder, _ = model
    other = tmp_path / "other"
    tiny_llm("llama", layers=LAYERS + 1).save_pretrained(other)
    byte_tokenizer.save_pretrained(other)
    write_json(other / SOURCE, {"name": "other", "source": "path:y", "files": {"model.safetensors": "1"}})
    encoder = TextEncoder.load(other, adapted_text(), LLM, "cpu")
    with pytest.raises(InputError, match=r"belong to the LLM tiny .*, and the LLM here has other files"):
        AdaptedTexts.of_package(folder, serving(), lambda: encoder).encode("raw", ["red"])
    smaller = TextEncoder.load(other, adapted_text(), LLM, "cpu").facet_pass.model
    smaller.layers = smaller.layers[:1]
    with (
        pytest.raises(InputError, match=r"the LLM has no layer layers\.1\..* adapters belong to the LLM tiny"),
        Adapter.read(folder).on(smaller),
    ):
        pass
    assert not any(part._forward_hooks for part in smaller.modules())


def test_damaged_or_missing_adapters_are_refused(model, tmp_path):
    folder, _ = model
    other = tmp_path / "models/words"
    other.mkdir(parents=True)
    for path in folder.glob("adapter_*"):
        (other / path.name).write_bytes(path.read_bytes())
    flip(other / ADAPTER_WEIGHTS, 12, 2)
    with pytest.raises(InputError, match="its adapters are damaged"):
        Adapter.read(other)
    (other / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(InputError, match="run `flame train words`"):
        Adapter.read(other)


def test_equal_adapters_are_equal_bytes_and_the_config_names_the_llm(world, model, tmp_path):
    folder, tower = model
    samples_of(world).save(tower, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("tiny", 2)
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]


def test_without_peft_the_extra_is_named(world, monkeypatch):
    own = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "peft":
            raise ModuleNotFoundError("No module named 'peft'", name="peft")
        return own(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match=r"'peft': pip install 'flame-mlops\[lora\]'"):
        samples_of(world).encoder()
