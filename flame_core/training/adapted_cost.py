"""The cost of the LLM with adapters as the text tower of a training, from its shape: it is too large to be run for it.

FLOPs are those of `text.cost`, and those of adapters and words. Backward costs as much as one forward: frozen weights
get no gradients, only what comes before them does. Of a token, a layer keeps the inputs of its two norms and of its
adapters, queries, keys, values and what attention makes of them, and four tensors of the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from flame_core.params import LoraParams, TextParams
from flame_core.text.cost import BYTES, LLMShape, count_words, sentence


@dataclass(frozen=True)
class ReadLLM:
    """The LLM as captions are read with it: its shape, the layers that run, its type, and the tokens of a caption."""

    shape: LLMShape
    layers: int
    dtype: str
    tokens: float

    @classmethod
    def of(cls, text: TextParams, shape: LLMShape) -> ReadLLM:
        """For captions of full length, in the prompt of `text.sentence`."""
        most = sentence(text, float("inf"), count_words).packed
        return cls(shape, text.sentence_layer or text.layer, text.dtype, most)


@dataclass(frozen=True)
class AdaptedCost:
    """The cost of a caption, and of what there is once.

    Attributes:
        weights: number of trained weights.
        forward_flops: per caption.
        activation_bytes: kept for backward, per caption.
        frozen_bytes: of the LLM and the rows of its words.
    """

    weights: int
    forward_flops: float
    activation_bytes: int
    frozen_bytes: int


def adapted_cost(lora: LoraParams, llm: ReadLLM, words: int, precision: str) -> AdaptedCost:
    """The cost of reading captions with adapters into so many words."""
    shape, layers, tokens = llm.shape, llm.layers, llm.tokens
    weights = lora.rank * layers * sum(sum(_sizes(shape, name)) for name in lora.targets)
    flops = shape.flops(layers, tokens, tokens**2 / 2) + 2 * weights * tokens + 2 * words * shape.hidden
    size = 2 if "bfloat16" in (precision, llm.dtype) else 4
    heads = shape.heads * shape.head_dim
    of_layer = 16 * shape.hidden + size * (5 * heads + 4 * shape.intermediate)  # per token
    kept = size * shape.hidden * layers + of_layer if lora.checkpoint_activations else layers * of_layer
    frozen = shape.weight_bytes(layers, llm.dtype) + words * shape.hidden * BYTES[llm.dtype]
    return AdaptedCost(weights, flops, round(tokens * kept) + 12 * words, frozen)


def _sizes(shape: LLMShape, name: str) -> tuple[int, int]:
    """Inputs and outputs of a layer of this name; of one with another name, those of a square one."""
    heads, pairs = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
    known = {
        "q_proj": (shape.hidden, heads),
        "k_proj": (shape.hidden, pairs),
        "v_proj": (shape.hidden, pairs),
        "o_proj": (heads, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
    }
    return known.get(name, (shape.hidden, shape.hidden))
