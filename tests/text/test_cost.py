"""The cost model of texts against Mistral-Nemo's public numbers and the template's token counts."""

from __future__ import annotations

import pytest

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import LLMParams, read_yaml
from flame_core.text.cost import KNOWN, LLMShape, Sequence, count_words, sequence, text_cost
from flame_core.text.facets import FacetTokenizer
from flame_core.text.llm import load_tokenizer
from flame_core.workspace import resolve_params
from tests.stages.pipeline import ROOT

NEMO = KNOWN["hub:mistralai/Mistral-Nemo-Instruct-2407"]


def test_weights_and_flops_of_mistral_nemo():
    """272.6 M weights and 0.545 GFLOP per token and layer; 12.25 B weights with the output head."""
    assert NEMO.layer_weights == pytest.approx(272.6e6, rel=1e-3)
    assert NEMO.flops(1, tokens=1, pairs=0) == pytest.approx(0.545e9, rel=1e-3)
    assert NEMO.weight_bytes(40, "bfloat16") / 2 + 131072 * 5120 == pytest.approx(12.25e9, rel=1e-3)


def test_a_config_without_head_sizes_is_read():
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 9}
    assert LLMShape.of(config | {"vocab_size": 7}) == LLMShape(64, 2, 4, 4, 16, 9, 7)


def test_the_demo_s_other_llm_is_known_before_it_is_fetched():
    """268 M weights, of which 168 M are token embeddings."""
    preset = resolve_params(Layout.find(ROOT), [], ROOT / "presets/demo-gemma.yaml").params
    (shape,) = (own for source, own in KNOWN.items() if preset.llm.source.startswith(source))
    assert shape.vocabulary * shape.hidden == pytest.approx(168e6, rel=1e-2)
    assert shape.weight_bytes(18, "float32") / 4 == pytest.approx(268e6, rel=1e-2)


def test_packed_and_separate_passes_written_out():
    each = Sequence(prefix=10, facets=[3, 2])
    assert each.packed == 15
    assert each.separate == (10 + 3) + (10 + 2)
    assert each.pairs == 10 * 10 / 2 + (3 * 10 + 9 / 2) + (2 * 10 + 4 / 2)


@pytest.fixture
def nemo():
    return resolve_params(Layout.find(ROOT), [], ROOT / "presets/cc3m-vitb16.yaml").params


def test_the_paper_s_templates_take_the_tokens_of_its_tokenizer(nemo):
    """FLAME's templates in Tekken: prefixes of 13 and 15 tokens, facets of 9, 15, 18, 15, 18, 16 and 14.

    Words and punctuation give the same counts, except for `Detailed`, which is two tokens there.
    """
    long = sequence(nemo.text, "long", 0, count_words)
    assert long.facets[1:] == [15, 18, 15, 18, 16, 14]
    assert (long.prefix, sum(long.facets)) == (1 + 5 + 8, 105)
    assert sequence(nemo.text, "raw", 0, count_words).packed == 1 + 4 + 8 + 9


def test_embedding_cc3m_as_the_cost_model_has_it(nemo):
    """386 packed tokens per picture against 1,452 in separate passes; 112,640 bytes of store per picture."""
    cost = text_cost(nemo, NEMO, 1000, {"raw": 12, "short": 25, "long": 150})
    assert cost.vectors == 11
    assert cost.tokens / 1000 == pytest.approx(386, abs=6)
    assert cost.separate_tokens / 1000 == pytest.approx(1452, abs=10)
    assert cost.flops / 1000 == pytest.approx(8.2e12, rel=0.03)
    assert cost.store_bytes == 1000 * 112_640
    int8 = nemo.model_copy(update={"text": nemo.text.model_copy(update={"store_dtype": "int8"})})
    assert text_cost(int8, NEMO, 1000, {"raw": 12, "short": 25, "long": 150}).store_bytes == 1000 * 56_364


@pytest.mark.llm
def test_the_count_is_that_of_the_real_tokenizer(smollm2):
    raw = read_yaml(ROOT / "params.yaml")["text"]
    from flame_core.params import TextParams

    text = TextParams.model_validate(raw)
    tokenizer = load_tokenizer(smollm2, LLMParams(name="smollm2", source="path:x"))
    tokens = FacetTokenizer(tokenizer, text)
    real = tokens.encode("long", "A red kite above the sea.")
    planned = sequence(
        text, "long", 7, lambda t: len(tokenizer(t.replace("{bos}", ""), add_special_tokens=False).input_ids)
    )
    assert abs(planned.packed - len(real)) <= 3  # SmolLM2 adds no BOS


def with_sentence(params, **changes):
    return params.model_copy(update={"text": type(params.text)(**{**params.text.model_dump(), "sentence": changes})})


def test_sentences_cost_their_own_tokens_and_vectors_at_their_own_layer(nemo):
    """In addition to facets: 12, 25 and 77 tokens of three captions, each with BOS and end token, through 40 layers."""
    lengths = {"raw": 12, "short": 25, "long": 150}
    plain = text_cost(nemo, NEMO, 1000, lengths)
    reading = {"layer": 40, "final_norm": True, "end_token": True, "max_caption_tokens": 77}
    cost = text_cost(with_sentence(nemo, **reading), NEMO, 1000, lengths)
    own = [12 + 2, 25 + 2, 77 + 2]
    assert plain.sentence_tokens == 0
    assert cost.sentence_tokens == 1000 * sum(own)
    assert cost.tokens == plain.tokens + cost.sentence_tokens
    assert cost.flops - plain.flops == pytest.approx(1000 * sum(NEMO.flops(40, s, s * s / 2) for s in own))
    assert (cost.vectors, cost.store_bytes) == (11 + 3, 1000 * 14 * 5120 * 2)
    assert cost.weight_bytes == NEMO.weight_bytes(40, nemo.text.dtype) > plain.weight_bytes
    both_ways = text_cost(with_sentence(nemo, **reading, bidirectional=True), NEMO, 1000, lengths)
    assert both_ways.flops - plain.flops == pytest.approx(1000 * sum(NEMO.flops(40, s, s * s) for s in own))


def test_a_layer_that_the_llm_is_known_to_lack_is_refused(nemo):
    with pytest.raises(ParamsError, match=r"text\.sentence\.layer is 41, but .* has 40 layers"):
        text_cost(with_sentence(nemo, layer=41), NEMO, 1, {"raw": 12, "short": 25, "long": 150})
