"""What `flame prompts` costs: the frozen LLM forward and backward at every step, and the states in the work cache.

A step of B captions of S tokens behind n prompts in a template of T tokens is B (T + n + S + 1) tokens through all
layers, forward and once more backward, since gradients go to the inputs but to no weight; the output head is computed
for captions only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from flame_core.params import PromptsParams
from flame_core.quantities import size_text, time_at
from flame_core.text.cost import BYTES, LLMShape


@dataclass(frozen=True)
class PromptsCost:
    """What the whole stage costs.

    Attributes:
        tokens: through the LLM.
        flops: of the LLM, forward and backward, and of the nearest rows.
        weights: that are trained.
        memory: bytes of the LLM with its head, and of one step's activations.
        state_bytes: of one state in the work cache.
    """

    tokens: float
    flops: float
    weights: int
    memory: float
    state_bytes: int


_KEPT = 34  # numbers per token, layer and hidden unit that a backward pass needs, of a gated decoder


def template_tokens(template: str, count: Callable[[str], int]) -> int:
    """Tokens of a template's own texts, with a BOS; `count` gives the tokens of a text."""
    texts = re.split(r"\{prompts\}|\{caption\}", template)
    return 1 + sum(count(text) for text in texts if text)


def through_llm(shape: LLMShape, batch: int, before: float, size: float) -> float:
    """FLOPs of captions of `size` tokens behind `before` others: forward, and backward to the inputs."""
    tokens, pairs = batch * (before + size), batch * (before + size) ** 2 / 2
    head = 2.0 * shape.hidden * shape.vocabulary * batch * (size + 1)
    return 2 * (shape.flops(shape.layers, tokens, pairs) + head)


def prompts_cost(params: PromptsParams, shape: LLMShape, vector: int, length: float, template: int = 1) -> PromptsCost:
    """The cost for captions of `length` tokens, stored vectors of `vector` numbers, a template of so many tokens."""
    n, width, hidden = params.count, params.width, shape.hidden
    size = min(length, params.max_tokens) + 1
    step_tokens = params.batch_size * (template + n + size)
    rows = 2.0 * hidden * shape.vocabulary * params.batch_size * n if params.weights.vocab else 0.0
    step = through_llm(shape, params.batch_size, template + n, size) + rows
    weights = vector * width + width * n * width + width * hidden + width * params.contrast.dims
    if (encoder := params.encoder) is not None:
        weights += (shape.vocabulary + 1) * encoder.width + 12 * encoder.layers * encoder.width**2
    number = BYTES[params.dtype]
    logits = 3 * 4 * params.batch_size * (size + 1) * shape.vocabulary  # in float32: logits, softmax, gradient
    return PromptsCost(
        tokens=params.steps * step_tokens,
        flops=params.steps * step,
        weights=weights,
        memory=shape.weight_bytes(shape.layers, params.dtype)
        + number * shape.vocabulary * hidden
        + number * _KEPT * step_tokens * shape.layers * hidden
        + logits
        + 16 * weights,
        state_bytes=12 * weights,
    )


def prompts_section(
    params: PromptsParams, shape: LLMShape, length: float, template: int, tflops: float
) -> dict[str, dict[str, str]]:
    """A title, and the cost of learning from captions of `length` tokens, as text."""
    vector = params.encoder.width if params.encoder else shape.hidden
    cost = prompts_cost(params, shape, vector, length, template)
    values = {
        "trained weights": f"{cost.weights / 1e6:,.1f} M",
        "steps": f"{params.steps:,} of {params.batch_size:,} captions",
        "tokens": f"{cost.tokens:,.0f} through the whole LLM, forward and backward",
        "FLOPs": f"{cost.flops:.3g}",
        "time": time_at(cost.flops, tflops),
        "memory": size_text(cost.memory),
        "work cache": size_text(2 * cost.state_bytes),
    }
    return {f"prompts: {params.count} per caption": values}
