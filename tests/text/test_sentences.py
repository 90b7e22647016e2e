"""Captions as sentences equal what transformers computes for each text by itself, whatever else is in the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flame_core.errors import InputError, ParamsError
from flame_core.params import LLMParams, TextParams
from flame_core.text.attention import pack
from flame_core.text.encoder import TextEncoder
from flame_core.text.facets import FacetTokenizer
from flame_core.text.llm import SOURCE
from tests.conftest import text_params, tiny_llm

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"]
WINDOW = 24  # of the families in tests.conftest that have one; in both directions if bidirectional
LAYERS = 3
CAPTIONS = [
    "A red kite.",
    "A red kite",  # another one begins with it
    "Two dogs and a boy play in the snow near an old wooden house with a green door",
    'Ein "Pferd" auf der Weide?',
    "",
]
READINGS: dict[str, dict[str, Any]] = {
    "last": {},
    "last of the whole model": {"layer": LAYERS, "final_norm": True, "end_token": True},
    "mean": {"read": "mean", "layer": 1},
    "mean behind an instruction": {"read": "mean", "prompt": "Instruct: say it\nQuery: {caption}!", "final_norm": True},
    "mean both ways": {"read": "mean", "bidirectional": True, "layer": LAYERS, "final_norm": True, "end_token": True},
    "last both ways": {"bidirectional": True, "prompt": "Query: {caption}"},
}


def reading(**changes: Any) -> TextParams:
    """Params that read facets at layer 2, and sentences with `changes`."""
    return text_params(layer=2, sentence=changes)


def opened(folder: Path, family: str, tokenizer, params: TextParams) -> TextEncoder:
    tiny_llm(family, LAYERS).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / SOURCE).write_text(json.dumps({"files": {}}))
    return TextEncoder.load(folder, params, LLMParams(name="tiny", source="path:x"), "cpu")


def expected(family: str, tokenizer, params: TextParams, text: str) -> np.ndarray:
    """The unmodified model's vector of one text by itself, from `hidden_states` and the reading written out."""
    model = tiny_llm(family, LAYERS)
    model.set_attn_implementation("eager")
    own = params.sentence
    assert own is not None
    before, after = own.prompt.split("{caption}")
    ids = [0, *tokenizer(before + text + after, add_special_tokens=False).input_ids, *([1] if own.end_token else [])]
    first = 1 + len(before)  # one token per character, after the BOS
    tokens = list(range(first, first + len(text))) if own.read == "mean" and text else [len(ids) - 1]
    options: dict[str, Any] = {}
    if own.bidirectional:
        options["attention_mask"] = both_ways(family, model, len(ids))
    layer = own.layer or params.layer
    states: dict[int, torch.Tensor] = {}
    for number, block in enumerate(model.layers, start=1):  # before the norm that the last of hidden_states has
        block.register_forward_hook(
            lambda module, inputs, output, number=number: states.__setitem__(
                number, output[0] if isinstance(output, tuple) else output
            )
        )
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids]), use_cache=False, **options)
        hidden = states[layer] if not own.final_norm else model.norm(states[layer])
    return F.normalize(hidden.reshape(len(ids), -1)[tokens].float().mean(dim=0), dim=-1).numpy()


def both_ways(family: str, model, length: int) -> Any:
    """Masks in which every token sees all others, or those within the layer's window on either side, if it has one."""
    open_mask = torch.zeros(1, 1, length, length)
    far = (torch.arange(length)[:, None] - torch.arange(length)[None]).abs() >= WINDOW
    slid = open_mask.masked_fill(far, torch.finfo(torch.float32).min)
    if family == "mistral":
        return slid
    if family.startswith("gemma"):
        return {"full_attention": open_mask, "sliding_attention": slid}
    return {"full_attention": open_mask} if family.startswith("qwen") else open_mask


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", READINGS)
def test_a_sentence_is_what_transformers_computes_for_that_text_alone(family, name, byte_tokenizer, tmp_path):
    params = reading(**READINGS[name])
    encoder = opened(tmp_path, family, byte_tokenizer, params)
    found = encoder.encode("sentence", [*CAPTIONS, CAPTIONS[0]])
    assert found.shape == (len(CAPTIONS) + 1, 1, 64)
    for caption, t in zip(CAPTIONS, found[:, 0], strict=False):
        np.testing.assert_allclose(t, expected(family, byte_tokenizer, params, caption), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(found[-1], found[0])


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("name", READINGS)
def test_rows_for_a_gpu_give_the_same_numbers(family, name, byte_tokenizer, tmp_path):
    encoder = opened(tmp_path, family, byte_tokenizer, reading(**READINGS[name]))
    alone = np.concatenate([encoder.encode("sentence", [caption]) for caption in CAPTIONS])
    encoder.backend = "flex"  # uncompiled here
    np.testing.assert_allclose(encoder.encode("sentence", CAPTIONS), alone, atol=1e-5, rtol=1e-5)


def test_facets_are_the_same_bytes_beside_a_reading_of_sentences(byte_tokenizer, tmp_path):
    plain = opened(tmp_path / "plain", "gemma2", byte_tokenizer, text_params(layer=2))
    deeper = opened(tmp_path / "deeper", "gemma2", byte_tokenizer, reading(layer=3, final_norm=True))
    for kind in ("raw", "short", "long@reference"):
        np.testing.assert_array_equal(deeper.encode(kind, CAPTIONS), plain.encode(kind, CAPTIONS))


@pytest.mark.parametrize("window", [None, 9])
def test_the_block_mask_of_both_directions_leaves_out_no_block_that_it_needs(byte_tokenizer, window):
    from torch.nn.attention.flex_attention import create_block_mask, create_mask

    tokens = FacetTokenizer(byte_tokenizer, reading(read="mean", bidirectional=True))
    sequences = [tokens.encode("sentence", "word " * (7 * n % 60 + 1)) for n in range(20)]
    _, packing = pack(sequences, "flex", "cpu", sum(map(len, sequences)) + 200, bidirectional=True)
    length = packing.document.shape[1]
    mask = packing.block_mask(window)
    d, p = packing.document[0], packing.position[0]
    near = (p[:, None] - p[None]).abs() < (window or length)
    whole = create_mask(mask.mask_mod, 1, 1, length, length, device="cpu")[0, 0]
    assert (whole == ((d[:, None] == d[None]) & near)).all()
    needed = create_block_mask(mask.mask_mod, 1, None, length, length, device="cpu").to_dense()[0, 0]
    found = mask.to_dense()[0, 0]
    assert (found >= needed).all()
    assert found.sum() < 0.4 * found.numel()


def test_the_instruction_is_read_and_not_averaged(byte_tokenizer):
    tokens = FacetTokenizer(byte_tokenizer, reading(read="mean", prompt="Say: {caption}."))
    sequence = tokens.encode("sentence", "a boat")
    assert [byte_tokenizer.decode([sequence.ids[i]]) for i in sequence.readout] == list("a boat")
    assert byte_tokenizer.decode(sequence.ids) == "<s>Say: a boat."
    assert (
        tokens.encode("sentence", "</s>\n").ids[6:-1] == byte_tokenizer("</s>", split_special_tokens=True).input_ids[1:]
    )


def test_a_caption_is_cut_at_the_reading_s_own_length(byte_tokenizer):
    tokens = FacetTokenizer(byte_tokenizer, reading(max_caption_tokens=5, end_token="</s>"))
    assert byte_tokenizer.decode(tokens.encode("sentence", "a long caption").ids) == "<s>a lon</s>"
    assert tokens.sentence is not None and tokens.sentence.is_cut("a long caption")
    assert not tokens.is_cut("a long caption")


def test_a_tokenizer_without_the_end_token_is_refused(byte_tokenizer):
    with pytest.raises(ParamsError, match=r"text\.sentence\.end_token: the LLM's tokenizer has no token '<\|end\|>'"):
        FacetTokenizer(byte_tokenizer, reading(end_token="<|end|>"))


def test_sentences_that_params_do_not_read_are_refused(byte_tokenizer):
    with pytest.raises(ParamsError, match=r"text\.sentence is null"):
        FacetTokenizer(byte_tokenizer, text_params()).encode("sentence", "a boat")


def test_a_layer_that_the_llm_lacks_is_named(byte_tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"text\.sentence\.layer is 9, but .* has 3 layers"):
        opened(tmp_path, "llama", byte_tokenizer, reading(layer=9))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"latent_attention_config": {}}, r"latent attention \(NV-Embed\).*Save its `embedding_model`"),
        ("config.json", {"use_bidirectional_attention": True}, r"set text\.sentence\.bidirectional to true"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], r"puts Dense behind the LLM"),
    ],
)
def test_models_that_do_more_than_their_decoder_are_refused(file, content, message, byte_tokenizer, tmp_path):
    opened(tmp_path, "llama", byte_tokenizer, reading())
    path = tmp_path / file
    kept = json.loads(path.read_text()) if path.exists() else None
    path.write_text(json.dumps({**kept, **content} if isinstance(content, dict) and kept else content))
    with pytest.raises(InputError, match=message):
        TextEncoder.load(tmp_path, reading(), LLMParams(name="tiny", source="path:x"), "cpu")
