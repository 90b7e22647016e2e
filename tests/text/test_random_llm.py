"""An LLM with newly drawn weights: the same shape, other numbers, and the same numbers for the same seed."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from flame_core.layout import Layout
from flame_core.params import LLMParams
from flame_core.text.fetched_llm import fetch
from flame_core.text.llm import SOURCE
from tests.conftest import tiny_llm


@pytest.fixture
def source(tmp_path, byte_tokenizer):
    tiny_llm("llama").save_pretrained(tmp_path / "source")
    byte_tokenizer.save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def test_weights_follow_from_the_seed_alone(source, tmp_path):
    def fetched(name: str, seed: int | None):
        folder = tmp_path / name
        folder.mkdir()
        fetch(LLMParams(name="tiny", source=f"path:{source}", random_seed=seed), Layout.find(tmp_path), folder)
        assert json.loads((folder / SOURCE).read_text())["files"].keys() >= {"model.safetensors", "tokenizer.json"}
        return folder / "model.safetensors"

    real, first, again, other = fetched("a", None), fetched("b", 1), fetched("c", 1), fetched("d", 2)
    assert first.read_bytes() == again.read_bytes()
    name = "layers.0.self_attn.q_proj.weight"
    weights = [load_file(path)[name] for path in (real, first, other)]
    assert weights[0].shape == weights[1].shape
    assert weights[1].std() < 0.03 < weights[0].std()  # as initialised; the fixture's queries are scaled
    assert (weights[1] != weights[2]).any()
