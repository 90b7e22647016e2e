"""The whole autoencoder on a closed grammar: a frozen toy LM writes back sentences that it gets as four prompts."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from flame_core.files.weights import own_weights_sha256
from flame_core.params import PromptsParams
from flame_core.soft_prompts.fit import Fit
from flame_core.soft_prompts.frozen_llm import TEMPLATE, FrozenLLM
from flame_core.soft_prompts.prompt_head import PromptHeadConfig
from flame_core.soft_prompts.reader import caption_ids, caption_loss
from flame_core.soft_prompts.reconstruction import Reconstruction, Written, overlap, reconstructed
from flame_core.soft_prompts.sentences import Sentences
from tests.soft_prompts.toy import toy_model

WORDS = (
    ["red", "big", "old", "sad", "wet", "shy"],
    ["dog", "cat", "man", "owl", "boy", "fox", "hen", "cow"],
    ["sees", "eats", "has", "hits", "likes", "hears"],
    ["bread", "fish", "hats", "rain", "trees", "songs", "cars", "mice"],
)


def word_tokenizer():
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", *(word for each in WORDS for word in each)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def test_overlap_is_the_f1_of_words():
    assert overlap("A red dog.", "a red, red cat") == pytest.approx(2 * 2 / 7)
    assert overlap("", "") == 1.0 and overlap("a", "") == 0.0
    found = Reconstruction([Written("a b", "a b", []), Written("c d", "c x", [])])
    assert (found.exact, found.overlap, found.by_chance) == (0.5, 0.75, 0.0)


SENTENCES = [" ".join(words) for words in product(*WORDS)]


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    torch.set_num_threads(1)
    tokenizer = word_tokenizer()
    return FrozenLLM.of(speaker(SENTENCES, tokenizer), tokenizer, "toy", "0")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_closed_grammar_is_written_back(llm: FrozenLLM, seed: int, tmp_path: Path):
    """Adjective, subject, verb, object: 2,304 sentences, of which a tenth is never learned."""
    before = own_weights_sha256(llm.model)
    params = PromptsParams.model_validate(
        {"count": 4, "encoder": {"width": 64, "layers": 2, "heads": 4, "masked": 0.0, "learning_rate": 1e-3},
         "max_tokens": 6, "width": 128, "dropout": 0.0, "steps": 200, "batch_size": 64, "learning_rate": 2e-3,
         "weights": {"vocab": 0.0, "contrast": 0.0}, "seed": seed}
    )  # fmt: skip
    config = PromptHeadConfig(
        prompts=4, vector=64, hidden=llm.hidden, width=128, scale=llm.row_scale, llm="0", llm_name="toy",
        template=TEMPLATE, max_tokens=6,
    )  # fmt: skip
    data = Sentences(SENTENCES, [], None, 0.1)
    assert len(data.texts) == 2304 and 150 < len(data.tested) < 320
    fit = Fit(params, config, llm, data)
    model, rows = fit.run(tmp_path)
    found = Reconstruction(reconstructed(fit, model, data.tested, "write"))
    assert found.exact > 0.85, (found.exact, rows[-1])
    assert found.by_chance < 0.5 and rows[-1]["held_out"] < 0.2
    assert own_weights_sha256(llm.model) == before


def speaker(sentences: list[str], tokenizer, steps: int = 400):
    """A language model of two layers that makes a sentence of four words that it reads first, in any order.

    An LLM uses what it has read; a model of single sentences would take no notice of prompts.
    """
    model = toy_model(vocabulary=len(tokenizer), hidden=64)
    for weight in model.parameters():
        weight.data.mul_(0.25)  # from an initialisation for attention far from uniform to a usual one
    llm = FrozenLLM.of(model, tokenizer, "toy", "0")
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(sentences), (64,), generator=draw).tolist()
        captions = caption_ids(llm, [sentences[row] for row in rows], 6)
        order = torch.rand(64, 4, generator=draw).argsort(dim=1)
        words = captions.ids[:, :4].gather(1, order)
        loss = caption_loss(llm, model.get_input_embeddings()(words), captions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
