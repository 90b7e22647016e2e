"""What `flame adapt-llm` costs: two captions per picture through the LLM with adapters at every step, forward and back.

Backward costs as much as one forward of the layers that have adapters, since the LLM's own weights get no gradients. A
batch in parts is read once more, and so are layers whose activations are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flame_core.params import AdaptLLMParams, CaptionKind, TextParams
from flame_core.quantities import size_text, time_at
from flame_core.text.cost import LLMShape, sentence, sequence
from flame_core.training.adapted_cost import ReadLLM, adapted_cost


@dataclass(frozen=True)
class AdaptingCost:
    """What the whole training costs.

    Attributes:
        tokens: that are learned from, each counted once per step.
        flops: forward and backward.
        weights: that are trained.
        memory: bytes of the LLM, of the adapters with their moments, and of one part's activations.
        state_bytes: of one state in the work cache.
    """

    tokens: float
    flops: float
    weights: int
    memory: float
    state_bytes: int


def adapting_cost(params: AdaptLLMParams, text: TextParams, shape: LLMShape, tokens: float) -> AdaptingCost:
    """The cost of learning from captions of so many tokens, as they are read."""
    layers = min(_layer(params, text), shape.layers)
    adapted = min(params.last_layers or layers, layers)
    whole, last = (
        adapted_cost(params.lora, ReadLLM(shape, count, text.dtype, tokens), 0, text.dtype)
        for count in (layers, adapted)
    )
    captions = 2 * params.batch_size
    at_once = 2 * (params.micro_batch_size or params.batch_size)
    once_more = whole.forward_flops if at_once < captions else 0.0
    once_more += last.forward_flops if params.lora.checkpoint_activations else 0.0
    return AdaptingCost(
        tokens=params.steps * captions * tokens,
        flops=params.steps * captions * (whole.forward_flops + last.forward_flops + once_more),
        weights=last.weights,
        memory=whole.frozen_bytes + at_once * last.activation_bytes + 16 * last.weights,
        state_bytes=12 * last.weights,
    )


def adapting_section(
    params: AdaptLLMParams,
    text: TextParams,
    shape: LLMShape,
    lengths: Mapping[CaptionKind, float],
    count: Callable[[str], int],
    tflops: float,
) -> dict[str, dict[str, str]]:
    """A title, and the cost of learning from captions of these lengths, as text; `count` counts a template's tokens."""
    read = [_tokens(params, text, kind, lengths[kind], count) for kind in params.kinds]
    if params.languages:  # then half of the captions are raw ones, mostly in other languages
        read += [_tokens(params, text, "raw", lengths["raw"], count)] * len(read)
    cost = adapting_cost(params, text, shape, sum(read) / len(read))
    values = {
        "trained weights": f"{cost.weights / 1e6:,.1f} M",
        "steps": f"{params.steps:,} of {params.batch_size:,} pictures with two captions each",
        "tokens": f"{cost.tokens:,.0f} through {_layer(params, text)} layers, forward and backward",
        "FLOPs": f"{cost.flops:.3g}",
        "time": time_at(cost.flops, tflops),
        "memory": size_text(cost.memory),
        "work cache": size_text(2 * cost.state_bytes),
        "beside it": "texts of the evaluation are read twice, without and with the adapters; `embed` finds the second",
    }
    return {f"adapters of the LLM: rank {params.lora.rank}": values}


def _layer(params: AdaptLLMParams, text: TextParams) -> int:
    """The layer at which captions are read."""
    return (text.sentence_layer if params.reading == "sentence" else None) or text.layer


def _tokens(
    params: AdaptLLMParams, text: TextParams, kind: CaptionKind, length: float, count: Callable[[str], int]
) -> float:
    """Tokens of a caption up to its first facet, or as a sentence."""
    if params.reading == "sentence":
        return sentence(text, length, count).packed
    own = sequence(text, kind, length, count)
    return own.prefix + own.facets[0]
