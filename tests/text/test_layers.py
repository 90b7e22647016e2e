"""Several layers in one pass equal what transformers computes for each text and each layer by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flame_core.text.encoder import TextEncoder
from flame_core.text.layers import read_layers
from flame_core.text.sentence import SENTENCE
from tests.conftest import FACETS, PREFIX, text_params, tiny_llm
from tests.text.test_sentences import CAPTIONS, LAYERS, expected, opened


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("sentence", [{"read": "mean"}, {"read": "mean", "bidirectional": True}, {}])
def test_each_layer_of_a_sentence_is_that_of_transformers(tmp_path, byte_tokenizer, family, sentence):
    deepest = text_params(layer=LAYERS, sentence={**sentence, "layer": LAYERS})
    encoder = opened(tmp_path, family, byte_tokenizer, deepest)
    told: list[int] = []
    found = read_layers(encoder, SENTENCE, CAPTIONS, [3, 1, 2], told.append)
    assert sum(told) == len(CAPTIONS)
    for layer in (1, 2, 3):
        params = text_params(layer=LAYERS, sentence={**sentence, "layer": layer})
        for text, vector in zip(CAPTIONS, found[layer], strict=True):
            wanted = expected(family, byte_tokenizer, params, text)
            np.testing.assert_allclose(vector, wanted, atol=3e-5, err_msg=f"{layer} {text!r}")


def test_a_caption_read_by_facets_is_the_mean_of_their_unit_vectors(tmp_path, byte_tokenizer):
    encoder = opened(tmp_path, "llama", byte_tokenizer, text_params(layer=LAYERS, normalise="none"))
    found = read_layers(encoder, "short", CAPTIONS[:2], [2, 3], lambda count: None)
    model, shown = tiny_llm("llama", LAYERS), []
    model.norm = torch.nn.Identity()
    for facet in FACETS:
        before, _, after = facet.partition("{bos}") if "{bos}" in facet else (facet, "", "")
        tail = byte_tokenizer(before, add_special_tokens=False).input_ids
        tail += [0, *byte_tokenizer(after, add_special_tokens=False).input_ids] if after else []
        head = byte_tokenizer(PREFIX.replace("{caption}", CAPTIONS[0]), add_special_tokens=False).input_ids
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([[0, *head, *tail]]), output_hidden_states=True).hidden_states
        shown.append({layer: F.normalize(states[layer][0, -1], dim=-1) for layer in (2, 3)})
    for layer in (2, 3):
        wanted = F.normalize(torch.stack([each[layer] for each in shown]).mean(dim=0), dim=-1)
        np.testing.assert_allclose(found[layer][0], wanted.numpy(), atol=3e-5)


def test_no_hook_stays_behind(tmp_path, byte_tokenizer):
    encoder = opened(tmp_path, "llama", byte_tokenizer, text_params(layer=LAYERS))
    assert isinstance(encoder, TextEncoder)
    read_layers(encoder, "raw", CAPTIONS[:1], [1, 2, 3], lambda count: None)
    layers = encoder.facet_pass.model.layers
    assert isinstance(layers, torch.nn.ModuleList) and not any(each._forward_hooks for each in layers)
