"""Invariants 1 to 3 of the design: packed == separate == FlexAttention; facets and rows are independent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flame_core.errors import ComputationError
from flame_core.params import LLMParams
from flame_core.text import attention
from flame_core.text.attention import Run, pack, sees
from flame_core.text.encoder import TextEncoder, compile_layers
from flame_core.text.facets import FacetTokenizer
from flame_core.text.llm import load_llm, load_tokenizer
from flame_core.text.probe import separate
from tests.conftest import text_params, tiny_llm

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"]
CAPTIONS = [
    "A red kite.",
    "Two dogs and a boy play in the snow near an old wooden house with a green door",
    "Ein Pferd auf der Weide?",
    'A sign that says "stop"',
]


def cut(family: str, folder, layer: int = 2):
    """The model of a family as the project loads it: from disk, cut at a layer."""
    tiny_llm(family).save_pretrained(folder)
    return load_llm(folder, layer, torch.float32, "cpu")


@pytest.mark.parametrize("family", [*FAMILIES, "deepseek_v3"])
def test_packed_facets_equal_separate_passes_of_the_unmodified_model(family, byte_tokenizer, tmp_path):
    """The oracle is the family's own eager attention on each prefix with one facet, cut by hidden_states."""
    params = text_params(layer=2)
    encoder = TextEncoder(cut(family, tmp_path), byte_tokenizer, params, "cpu")
    packed = encoder.encode("short", CAPTIONS)
    oracle = tiny_llm(family)
    oracle.set_attn_implementation("eager")
    for caption, facets in zip(CAPTIONS, packed, strict=True):
        for j, single in enumerate(separate(encoder.facets.encode("short", caption))):
            with torch.inference_mode():
                states = oracle(input_ids=torch.tensor([single.ids]), output_hidden_states=True).hidden_states
            expected = F.normalize(states[2][0, -1].float(), dim=-1).numpy()
            np.testing.assert_allclose(facets[j], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_flex_attention_gives_the_same_numbers(family, byte_tokenizer, tmp_path):
    model = cut(family, tmp_path)
    encoder = TextEncoder(model, byte_tokenizer, text_params(layer=2), "cpu")
    expected = encoder.encode("short", CAPTIONS)
    sequences = [encoder.facets.encode("short", caption) for caption in CAPTIONS]
    length = sum(map(len, sequences)) + 7  # all captions in one row, and some padding
    ids, packing = pack(sequences, "flex", "cpu", length)
    with torch.inference_mode():
        hidden = model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0][0]
    start = 0
    for sequence, facets in zip(sequences, expected, strict=True):
        read = F.normalize(hidden[[start + i for i in sequence.readout]], dim=-1).numpy()
        np.testing.assert_allclose(read, facets, atol=1e-5, rtol=1e-5)
        start += len(sequence)


def test_changing_one_facet_leaves_the_others_as_they_were(byte_tokenizer, tmp_path):
    model = cut("llama", tmp_path)
    before = TextEncoder(model, byte_tokenizer, text_params(layer=2), "cpu").encode("short", CAPTIONS)
    other = text_params(layer=2).model_dump()
    other["template"]["short"]["facets"][1] = ' something else, and much longer than it was before, in one word:"'
    after = TextEncoder(model, byte_tokenizer, text_params(**other), "cpu").encode("short", CAPTIONS)
    np.testing.assert_allclose(after[:, [0, 2]], before[:, [0, 2]], atol=1e-5)
    assert np.abs(after[:, 1] - before[:, 1]).max() > 1e-2


def test_a_row_depends_on_its_caption_alone(byte_tokenizer, tmp_path):
    encoder = TextEncoder(cut("mistral", tmp_path), byte_tokenizer, text_params(layer=2), "cpu")
    together = encoder.encode("long", [*CAPTIONS, CAPTIONS[0]])
    alone = np.concatenate([encoder.encode("long", [caption]) for caption in CAPTIONS])
    np.testing.assert_allclose(together[:4], alone, atol=1e-5)
    assert (together[4] == together[0]).all()


def test_sees_is_the_rule_written_out():
    document = [0] * 6 + [1] * 4
    segment = [0, 0, 1, 1, 2, 2, 0, 0, 1, 2]
    for bidirectional in (False, True):
        for q in range(10):
            for k in range(10):
                expected = document[q] == document[k] and (
                    (segment[q] == segment[k] == 0 and bidirectional) or (k <= q and segment[k] in (0, segment[q]))
                )
                t = [torch.tensor(v) for v in (document[q], document[k], segment[q], segment[k], q, k)]
                assert bool(sees(*t, bidirectional=bidirectional)) == expected


def test_a_model_that_ignores_the_packing_is_refused_by_name(byte_tokenizer, tmp_path):
    """Bloom has its own attention, which no registered function replaces."""
    from transformers import BloomConfig, BloomModel

    model = BloomModel(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=2))
    model.save_pretrained(tmp_path)
    with pytest.raises((ComputationError, TypeError), match="Bloom"):
        TextEncoder(load_llm(tmp_path, 2, torch.float32, "cpu"), byte_tokenizer, text_params(layer=2), "cpu")


@pytest.mark.parametrize("window", [None, 9])
def test_the_block_mask_is_the_rule_and_leaves_out_no_block_that_it_needs(byte_tokenizer, window):
    """The oracle is the mask that torch builds token by token."""
    from torch.nn.attention.flex_attention import create_block_mask, create_mask

    facets = FacetTokenizer(byte_tokenizer, text_params())
    sequences = [facets.encode("long", text) for text in CAPTIONS * 3]
    _, packing = pack(sequences, "flex", "cpu", sum(map(len, sequences)) + 200)
    length = packing.document.shape[1]
    mask = packing.block_mask(window)
    whole = create_mask(mask.mask_mod, 1, 1, length, length, device="cpu")[0, 0]
    d, s, p = packing.document[0], packing.segment[0], packing.position[0]
    index = torch.arange(length)
    expected = sees(d[:, None], d[None], s[:, None], s[None], index[:, None], index[None])
    if window is not None:
        expected &= p[:, None] - p[None] < window
    assert (whole == expected).all()
    needed = create_block_mask(mask.mask_mod, 1, None, length, length, device="cpu").to_dense()[0, 0]
    found = mask.to_dense()[0, 0]
    assert (found >= needed).all()
    assert found.sum() < 0.2 * found.numel()  # a few blocks beside the diagonal


def test_kinds_of_a_file_share_rows_on_a_gpu_with_the_same_numbers(byte_tokenizer, tmp_path):
    params = text_params(layer=2)
    encoder = TextEncoder(cut("llama", tmp_path), byte_tokenizer, params, "cpu")
    kinds = {"raw": CAPTIONS, "short": CAPTIONS[:2], "raw@reference": CAPTIONS[:2], "long@reference": CAPTIONS}
    expected = [encoder.encode(kind, texts) for kind, texts in kinds.items()]
    encoder.backend = "flex"  # uncompiled here; the rows are those of a GPU
    told = []
    found = encoder.embed([encoder.tokenise(kind, texts) for kind, texts in kinds.items()], told.append)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)
    assert sum(told) == sum(len(encoder.facets.encode(kind, text)) for kind, own in kinds.items() for text in own)


def test_compiled_layers_give_the_same_numbers(byte_tokenizer, tmp_path, monkeypatch):
    """Traced as on a GPU, but run without a compiler for this processor, since a machine may not have one."""
    traced = partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    model = cut("gemma3_text", tmp_path, layer=3)
    expected = TextEncoder(model, byte_tokenizer, text_params(layer=3), "cpu").encode("short", CAPTIONS)
    compile_layers(model)
    found = TextEncoder(model, byte_tokenizer, text_params(layer=3), "cpu").encode("short", CAPTIONS)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_every_thread_may_compile_all_variants_of_attention(monkeypatch):
    """torch keeps the limit per thread, and a server answers in several."""
    from torch._dynamo import config

    monkeypatch.setattr(attention, "_compiled_flex", lambda: None)
    packing: Any = SimpleNamespace(document=SimpleNamespace(device=torch.device("cuda")))

    def limit() -> int:
        attention._flex(packing)
        return config.recompile_limit

    with config.patch(recompile_limit=8), ThreadPoolExecutor(1) as other:
        assert limit() == other.submit(limit).result() == 64


def test_a_row_has_no_pads_and_sequences_of_a_shape_share_a_mask(byte_tokenizer):
    facets = FacetTokenizer(byte_tokenizer, text_params())
    sequences = [facets.encode("short", text) for text in ("A red kite", "A big boat", "Ein Pferd")]
    ids, packing = pack(sequences, "sdpa", "cpu")
    assert ids.tolist() == [[token for each in sequences for token in each.ids]]
    length = len(sequences[0])
    assert packing.runs == [Run(0, 2, length), Run(2 * length, 1, length - 1)]
    mask = packing.dense_mask(packing.runs[0], None)
    segment = sequences[0].segment
    for q in range(length):
        for k in range(length):
            assert mask[q, k] == (k <= q and segment[k] in (0, segment[q]))


@pytest.mark.llm
def test_smollm2_packed_equals_separate_passes_of_the_unmodified_model(smollm2):
    from transformers import AutoModel

    params = text_params(layer=29)
    tokenizer = load_tokenizer(smollm2, LLMParams(name="smollm2", source="path:x"))
    encoder = TextEncoder(load_llm(smollm2, 29, torch.float32, "cpu"), tokenizer, params, "cpu")
    oracle = AutoModel.from_pretrained(smollm2, attn_implementation="eager", dtype=torch.float32)
    packed = encoder.encode("short", CAPTIONS[:2])
    for caption, facets in zip(CAPTIONS[:2], packed, strict=True):
        for j, single in enumerate(separate(encoder.facets.encode("short", caption))):
            with torch.inference_mode():
                states = oracle(input_ids=torch.tensor([single.ids]), output_hidden_states=True).hidden_states
            expected = F.normalize(states[29][0, -1], dim=-1).numpy()
            np.testing.assert_allclose(facets[j], expected, atol=1e-5, rtol=1e-5)
