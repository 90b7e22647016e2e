"""The tokens that all texts begin with are computed once; the results are compared with whole texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flame_core.text.attention import pack
from flame_core.text.encoder import TextEncoder
from flame_core.text.facets import FacetTokenizer
from flame_core.text.llm import load_llm
from flame_core.text.shared_head import split_head
from tests.conftest import text_params, tiny_llm
from tests.text.test_encoder import CAPTIONS, FAMILIES

HEAD = 'Image description : "'  # one token per byte, after BOS


@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_behind_a_shared_head_equal_whole_ones(family, byte_tokenizer, tmp_path):
    """Families with sliding windows see 24 tokens, so the head of 22 tokens leaves the window within the text."""
    tiny_llm(family).save_pretrained(tmp_path)
    model = load_llm(tmp_path, 2, torch.float32, "cpu")
    encoder = TextEncoder(model, byte_tokenizer, text_params(layer=2), "cpu")
    sequences = [encoder.facets.encode("short", caption) for caption in CAPTIONS]
    ids, packing = pack(sequences, "sdpa", "cpu")
    with torch.inference_mode():
        hidden = model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0]
    expected = F.normalize(hidden[0, packing.reads], dim=-1).reshape(len(CAPTIONS), 3, -1)

    lengths: list[tuple[int, int]] = []
    model.layers[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[:2]))
    found = encoder.encode("short", CAPTIONS)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-5)
    head = 1 + len(HEAD)
    assert lengths[0] == (1, head)
    assert lengths[1] == (1, sum(map(len, sequences)) - head * len(CAPTIONS))
    assert len(lengths) == 2


def test_the_head_ends_where_texts_differ_and_with_the_prefix(byte_tokenizer):
    facets = FacetTokenizer(byte_tokenizer, text_params())
    whole = [facets.encode("short", text) for text in ("A red kite", "A red bus")]
    head, rest = split_head(whole)
    assert byte_tokenizer.decode(head.ids[1:]) == HEAD + "A red "
    assert [head.ids + each.ids for each in rest] == [each.ids for each in whole]
    assert [each.position[0] for each in rest] == [len(head)] * 2
    assert [[i + len(head) for i in each.readout] for each in rest] == [each.readout for each in whole]

    equal = [facets.encode("short", text) for text in ("A cat", "A cat.")]  # normalised alike: facets are never shared
    head, rest = split_head(equal)
    assert len(head) == equal[0].segment.count(0)
    assert {*rest[0].segment} == {1, 2, 3}

    head, rest = split_head(whole[:1])
    assert len(head) == 0
    assert rest == whole[:1]


def test_a_token_that_is_read_is_in_no_head(byte_tokenizer):
    """Sentences consist only of a prefix, and one sentence may be the beginning of another."""
    last = FacetTokenizer(byte_tokenizer, text_params(sentence={}))
    head, rest = split_head([last.encode("sentence", text) for text in ("a boat", "a boat on the sea")])
    assert byte_tokenizer.decode(head.ids) == "<s>a boa"
    assert [each.readout for each in rest] == [[0], [11]]
    mean = FacetTokenizer(byte_tokenizer, text_params(sentence={"read": "mean", "prompt": "Say {caption}"}))
    head, rest = split_head([mean.encode("sentence", text) for text in ("a boat", "a boat on the sea")])
    assert byte_tokenizer.decode(head.ids) == "<s>Say "
    assert [len(each.readout) for each in rest] == [6, 17]
