"""The last block is computed only at the tokens that are read; test_encoder checks their values."""

from __future__ import annotations

import pytest
import torch

from flame_core.text.attention import pack
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import load_llm
from tests.conftest import text_params, tiny_llm
from tests.text.test_encoder import CAPTIONS, FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_and_mlp_of_the_last_block_see_the_read_tokens_and_keys_and_values_all(
    family, byte_tokenizer, tmp_path
):
    tiny_llm(family).save_pretrained(tmp_path)
    model = load_llm(tmp_path, 2, torch.float32, "cpu")
    encoder = TextEncoder(model, byte_tokenizer, text_params(layer=2), "cpu")
    sequences = [encoder.facets.encode("short", caption) for caption in CAPTIONS]
    ids, packing = pack(sequences, "sdpa", "cpu")
    tokens: dict[str, list[int]] = {}
    for number, block in enumerate(model.layers):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"):
            module = dict(block.named_modules()).get(name) or block.get_submodule(name.replace(".", ".inner.", 1))
            inner = getattr(module, "inner", module)
            inner.register_forward_hook(
                lambda _, inputs, out, name=f"{number} {name}": tokens.update({name: inputs[0][..., 0].numel()})
            )
    with torch.inference_mode():
        model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)
    everything, read = sum(map(len, sequences)), 3 * len(CAPTIONS)
    names = {name.partition(" ")[2] for name in tokens}
    assert {tokens[f"0 {name}"] for name in names} == {everything}
    assert {name: tokens[f"1 {name}"] for name in names} == {
        "self_attn.q_proj": read,
        "self_attn.k_proj": everything,
        "self_attn.v_proj": everything,
        "self_attn.o_proj": read,
        "mlp.down_proj": read,
    }
