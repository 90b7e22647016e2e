"""L_vocab by brute force and its gradient, L_c with one pass and two, and the terms in the whole loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flame_core.params import PromptsParams
from flame_core.soft_prompts import losses
from flame_core.soft_prompts.autoencoder import Autoencoder
from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.soft_prompts.losses import contrast_loss, nearest_ids, vocabulary_loss
from flame_core.soft_prompts.prompt_head import PromptHeadConfig
from flame_core.soft_prompts.reader import caption_ids
from tests.soft_prompts.toy import toy_model


def llm_of(byte_tokenizer, codes: int = 5) -> FrozenLLM:
    return FrozenLLM.of(toy_model(vocabulary=codes, hidden=8), byte_tokenizer, "toy", "0")


def test_vocab_is_the_distance_to_the_nearest_code_by_brute_force(byte_tokenizer):
    llm = llm_of(byte_tokenizer)
    codes = llm.embedded(torch.arange(5))
    p = (torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0)) * 0.3).requires_grad_()
    squares = (p.detach()[:, :, None] - codes).square()  # [3, 2, 5, 8]
    nearest = squares.sum(dim=-1).argmin(dim=-1)
    assert torch.equal(nearest_ids(llm, p), nearest)
    assert len(nearest.unique()) > 1
    loss = vocabulary_loss(llm, p)
    assert float(loss.detach()) == pytest.approx(float(squares.sum(dim=-1).min(dim=-1).values.mean()) / 8, rel=1e-5)
    loss.backward()
    expected = 2 * (p.detach() - codes[nearest]) / p.numel()
    assert p.grad is not None and torch.allclose(p.grad, expected, atol=1e-8)
    assert llm.model.get_input_embeddings().weight.grad is None


def test_a_prompt_that_is_a_code_costs_nothing(byte_tokenizer):
    llm = llm_of(byte_tokenizer)
    p = llm.embedded(torch.tensor([[4, 0, 2]])).clone().requires_grad_()
    loss = vocabulary_loss(llm, p)
    loss.backward()
    assert float(loss.detach()) == 0 and p.grad is not None and not p.grad.any()


def test_blocks_of_any_size_find_the_same_codes(byte_tokenizer, monkeypatch):
    llm = llm_of(byte_tokenizer, 300)
    p = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    whole = nearest_ids(llm, p)
    for numbers in (12, 12 * 7, 12 * 299):
        monkeypatch.setattr(losses, "_DISTANCES", numbers)
        assert torch.equal(nearest_ids(llm, p), whole)
    expected = torch.cdist(p.flatten(0, 1), llm.embedded(torch.arange(300))).argmin(dim=1)
    assert torch.equal(whole.flatten(), expected)


def test_contrast_is_the_smoothed_cross_entropy():
    e = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    other = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    logits = (e @ other.T / 0.07).log_softmax(dim=-1)
    wanted = torch.full((4, 4), 0.1 / 4) + 0.9 * torch.eye(4)
    assert float(contrast_loss(e, other, 0.07, 0.1)) == pytest.approx(float(-(wanted * logits).sum(dim=-1).mean()))


@pytest.mark.parametrize("passes", [1, 2])
def test_only_with_two_passes_is_there_a_pull_together(passes):
    """With one, the positive's gradient is along the vector itself, which its length does not let through."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 6, generator=draw, requires_grad=True) for _ in range(2))
    e = F.normalize(x, dim=-1)
    other = e.detach() if passes == 1 else F.normalize(y, dim=-1)
    positive = (e * other).sum()
    (gradient,) = torch.autograd.grad(positive, x, retain_graph=True)
    assert (gradient.abs().max() < 1e-6) == (passes == 1)
    loss = contrast_loss(e, None if passes == 1 else other, 0.5, 0.0)  # with all its negatives
    assert torch.autograd.grad(loss, x)[0].norm() > 1e-3


def test_the_second_pass_has_other_dropout_and_the_llm_reads_the_first(byte_tokenizer):
    llm = FrozenLLM.of(toy_model(), byte_tokenizer, "toy", "0")
    config = PromptHeadConfig(
        prompts=2, vector=8, hidden=32, width=16, scale=1.0, dropout=0.5, llm="0", llm_name="toy",
        template="{prompts}{caption}", max_tokens=8,
    )  # fmt: skip
    t, captions = torch.randn(4, 8), caption_ids(llm, ["a", "b", "c", "d"], 8)
    found = {}
    for passes in (1, 2):
        torch.manual_seed(0)
        model = Autoencoder(PromptsParams.model_validate({"contrast": {"passes": passes}}), config, 300).train()
        found[passes] = model.losses(llm, t, captions)
    assert torch.equal(found[1]["lm"], found[2]["lm"]) and torch.equal(found[1]["vocab"], found[2]["vocab"])
    assert not torch.equal(found[1]["contrast"], found[2]["contrast"])
    without = PromptsParams.model_validate({"weights": {"vocab": 0, "contrast": 0}})
    torch.manual_seed(0)
    assert set(Autoencoder(without, config, 300).losses(llm, t, captions)) == {"loss", "lm"}
