"""A tiny causal language model with a tokenizer of bytes, as a folder that `load_frozen` reads."""

from __future__ import annotations

from pathlib import Path

import torch

from flame_core.digest import write_json
from flame_core.params import LLMParams
from flame_core.soft_prompts.frozen_llm import TEMPLATE, FrozenLLM, load_frozen
from flame_core.text.llm import SOURCE

PARAMS = LLMParams(name="toy", source="path:x")


def toy_model(family: str = "llama", *, tied: bool = True, seed: int = 0, vocabulary: int = 300, hidden: int = 32):
    """Two random layers with a head."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=hidden // 2,
        max_position_embeddings=256,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def toy_folder(folder: Path, tokenizer, **options) -> Path:
    """The model and its tokenizer, as `flame fetch-llm` would leave them."""
    toy_model(**options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    digest = str(sorted(options.items()))
    write_json(folder / SOURCE, {"name": "toy", "source": "path:x", "files": {"model.safetensors": digest}})
    return folder


def toy_llm(folder: Path, tokenizer, template: str = TEMPLATE, **options) -> FrozenLLM:
    """The same, loaded and frozen."""
    return load_frozen(toy_folder(folder, tokenizer, **options), PARAMS, torch.float32, "cpu", template)
