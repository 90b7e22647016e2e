"""The training of prompts: which weights decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flame_core.params import PromptsParams
from flame_core.soft_prompts.autoencoder import Autoencoder
from flame_core.soft_prompts.fit import Fit
from flame_core.soft_prompts.prompt_head import PromptHeadConfig
from flame_core.soft_prompts.sentences import Sentences
from tests.soft_prompts.toy import toy_llm


def test_only_matrices_decay(tmp_path: Path, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    llm = toy_llm(tmp_path / "llm", byte_tokenizer)
    params = PromptsParams.model_validate(
        {"count": 2, "encoder": {"width": 8, "layers": 1, "heads": 2, "learning_rate": 0.2}, "width": 8,
         "steps": 3, "batch_size": 2, "learning_rate": 0.1, "warmup_steps": 0, "weight_decay": 0.5, "held_out": 0.4}
    )  # fmt: skip
    config = PromptHeadConfig(
        prompts=2, vector=8, hidden=llm.hidden, width=8, scale=1.0, llm="0", llm_name="toy", template=params.template,
        max_tokens=params.max_tokens,
    )  # fmt: skip
    fit = Fit(params, config, llm, Sentences([f"a dog {number}" for number in range(20)], [], None, 0.4))

    def still(model: Autoencoder, *inputs: object):
        return {name: sum(0.0 * weight.sum() for weight in model.parameters()) for name in ("loss", "lm")}

    monkeypatch.setattr(Autoencoder, "losses", still)
    before, after = dict(fit.untrained().named_parameters()), dict(fit.run(tmp_path / "states")[0].named_parameters())
    for name, weight in before.items():
        same = torch.equal(weight, after[name])
        assert same if weight.ndim <= 1 else not same, name
    assert {"hotness", "encoder.first", "encoder.layers.norm.weight"} <= before.keys()
