"""What `flame caption-lm` costs: tower and frozen LLM at every step, and what is written at the end.

A step of B pictures is B passes of the tower, and B (T + n + S + 1) tokens through the LLM as for `flame prompts`
(`soft_prompts.cost`); the tower goes backward as well unless `tower_rate` is 0. The connector is not counted.
"""

from __future__ import annotations

from flame_core.params import CaptionLMParams
from flame_core.quantities import size_text, time_at
from flame_core.soft_prompts.cost import through_llm
from flame_core.text.cost import BYTES, LLMShape


def caption_lm_section(
    params: CaptionLMParams,
    shape: LLMShape,
    *,
    prompts: int,
    template: int,
    length: float,
    tower_flops: float,
    tflops: float,
) -> dict[str, dict[str, str]]:
    """A title, and the cost with so many prompts per picture and captions of `length` tokens, as text."""
    size = min(length, params.max_tokens) + 1
    step_tokens = params.batch_size * (template + prompts + size)
    llm = params.steps * through_llm(shape, params.batch_size, template + prompts, size)
    tower = (3 if params.tower_rate else 1) * params.steps * params.batch_size * tower_flops
    weights = shape.weight_bytes(shape.layers, params.dtype) + BYTES[params.dtype] * shape.vocabulary * shape.hidden
    values = {
        "steps": f"{params.steps:,} of {params.batch_size:,} pictures",
        "tokens": f"{params.steps * step_tokens:,.0f} through the whole LLM, forward and backward",
        "FLOPs": f"{llm + tower:.3g}, {llm / (llm + tower):.0%} of them of the LLM",
        "time": time_at(llm + tower, tflops),
        "LLM in memory": f"{size_text(weights)} in {params.dtype}",
    }
    return {f"captioner: {prompts} prompts per picture": values}
