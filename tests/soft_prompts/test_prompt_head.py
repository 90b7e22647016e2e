"""The prompt head: shapes from its config, scale of the LLM's rows, a reference that stays frozen, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flame_core.errors import InputError
from flame_core.soft_prompts.prompt_head import CONFIG, HEAD, PromptHead, PromptHeadConfig
from tests.bits import flip
from tests.soft_prompts.toy import toy_llm


def config(**changes) -> PromptHeadConfig:
    values = {"prompts": 5, "vector": 12, "hidden": 32, "width": 24, "scale": 0.2, "dropout": 0.5, "llm": "a" * 64}
    return PromptHeadConfig.model_validate(
        values | {"llm_name": "toy", "template": "{prompts}{caption}", "max_tokens": 32} | changes
    )


def head(**changes) -> PromptHead:
    torch.manual_seed(0)
    return PromptHead(config(**changes))


def test_prompts_have_the_shape_of_the_config_and_the_scale_of_the_llms_rows():
    t = torch.randn(400, 12) * 3 + 100  # vectors with a large part that all share
    own = head(width=256).eval()
    own.standardise(t)
    found = own(t).detach()
    assert found.shape == (400, 5, 32)
    assert float(found.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)
    spread = float((found - found.mean(dim=0)).square().mean().sqrt())
    assert spread > 0.1  # it tells captions apart, in spite of what they share


def test_a_reference_stays_frozen_and_in_evaluation_mode(tmp_path):
    own = head()
    own.standardise(torch.randn(50, 12))
    t = torch.randn(3, 12)
    assert not torch.equal(own(t), own(t))  # dropout
    own.save(tmp_path)
    loaded = PromptHead.load(tmp_path)
    within = nn.ModuleDict({"reference": loaded, "connector": nn.Linear(2, 2)})
    within.train()
    within.requires_grad_(True)
    assert within.training and not any(module.training for module in loaded.modules())
    first, second = loaded(t.requires_grad_()), loaded(t)
    assert torch.equal(first, second) and not first.requires_grad
    assert torch.equal(first, own.eval()(t))
    assert loaded.config == config()


def test_saved_twice_it_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        head().save(tmp_path / name)
    for file in (HEAD, CONFIG):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_missing_damaged_or_of_another_llm_is_refused(tmp_path, byte_tokenizer):
    with pytest.raises(InputError, match="is missing: run `flame prompts` first"):
        PromptHead.load(tmp_path)
    head().save(tmp_path)
    llm = toy_llm(tmp_path / "llm", byte_tokenizer)
    with pytest.raises(InputError, match="these prompts are for toy \\(aaaaaaaaaaaa\\), and the LLM is llm"):
        PromptHead.load(tmp_path).require_llm(llm.digest, llm.name)
    PromptHead.load(tmp_path).require_llm("a" * 64, "toy")
    before = (tmp_path / CONFIG).read_bytes()
    (tmp_path / CONFIG).write_bytes(before.replace(b'"prompts": 5', b'"prompts": 6'))
    with pytest.raises(InputError, match="its prompt head is damaged"):
        PromptHead.load(tmp_path)
    (tmp_path / CONFIG).write_bytes(before.replace(b'"prompts": 5', b'"prompts": 0'))
    with pytest.raises(InputError, match="its prompt head is damaged"):
        PromptHead.load(tmp_path)
    (tmp_path / CONFIG).write_bytes(before)
    flip(tmp_path / HEAD, 3, 1)
    with pytest.raises(InputError, match="its prompt head is damaged"):
        PromptHead.load(tmp_path)
