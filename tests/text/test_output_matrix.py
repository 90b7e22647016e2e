"""The length that an LLM's final norm gives to vectors, by its weights and what its class adds to them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from flame_core.text.llm import FINAL_NORMS
from flame_core.text.output_matrix import norm_length

TINY = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
OF_LAYERS = {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 50, "num_kv_shared_layers": 0}
KINDS = {
    "llama": {},
    "gemma2": {},  # the norms of these three multiply by 1 + weight
    "vaultgemma": {},
    "nemotron": {},
    "gemma4_text": {**OF_LAYERS, "num_global_key_value_heads": 1, "global_head_dim": 8},  # and of these by the weight
    "gemma3n_text": {**OF_LAYERS, "laurel_rank": 2, "activation_sparsity_pattern": None},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_is_that_which_the_norm_of_the_llm_gives(tmp_path, kind):
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**TINY, **KINDS[kind])).eval()
    norm = next(getattr(model.base_model, name) for name in FINAL_NORMS if hasattr(model.base_model, name))
    with torch.no_grad():
        norm.weight.copy_(0.5 + torch.rand_like(norm.weight))
        model.save_pretrained(tmp_path)
        x = torch.tensor([37.0, -37.0] * 8)  # of one size, and of mean 0
        expected = norm(x).norm().item()
    assert norm_length(tmp_path) == pytest.approx(expected, rel=1e-5)


def test_an_architecture_that_transformers_lacks_has_the_length_of_its_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "strange"}')
    save_file({"model.norm.weight": torch.full((4,), 3.0)}, tmp_path / "model.safetensors")
    assert norm_length(tmp_path) == pytest.approx(6.0)
