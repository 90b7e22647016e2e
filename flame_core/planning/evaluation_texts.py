"""What `embed` reads beside training captions: held-out captions, prompts of classes, texts of benchmarks.

Held-out captions are counted one by one if they are there, else estimated from the captions that the sources list.
Their classes are known once `ingest` has run, the texts of a benchmark if its data are on this machine. Of many texts
a part is counted, drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from flame_core.layout import Layout
from flame_core.measuring.texts import class_names, evaluation_texts, read_classes, read_validation_captions
from flame_core.params import Params
from flame_core.planning.start import Given
from flame_core.preflight.data_look import DataLook
from flame_core.suite.collection import collect
from flame_core.text.cost import LLMShape, sentence, sequence, vector_bytes
from flame_core.text.facets import REFERENCE, normalise_sentence
from flame_core.text.language_means import language_jobs

Texts = Iterable[tuple[str, str]]  # (kind, text)
MOST_COUNTED = 20_000  # texts of a part


@dataclass(frozen=True)
class PartCost:
    """Tokens that the LLM reads, FLOPs of that, and bytes in the store, of a part of the texts."""

    tokens: float = 0.0
    flops: float = 0.0
    store_bytes: int = 0

    def __add__(self, other: PartCost) -> PartCost:
        return PartCost(self.tokens + other.tokens, self.flops + other.flops, self.store_bytes + other.store_bytes)

    def times(self, number: float) -> PartCost:
        """That of so many texts like this one."""
        return PartCost(number * self.tokens, number * self.flops, round(number * self.store_bytes))


def evaluation_costs(params: Params, layout: Layout, shape: LLMShape, start: Given) -> dict[str, PartCost]:
    """{part: cost}; parts that are not known or read nothing are left out.

    Raises:
        InputError: data of a benchmark are damaged.
    """
    cost = _reader(params, shape, start.count)
    found: dict[str, PartCost] = {}

    def add(part: str, texts: Texts) -> None:
        if own := list(dict.fromkeys(texts)):
            counted = own if len(own) <= MOST_COUNTED else Random(0).sample(own, MOST_COUNTED)
            counts = ((kind, start.count(normalise_sentence(text, params.text.normalise))) for kind, text in counted)
            total = sum((cost(kind, count) for kind, count in counts), PartCost())
            if len(counted) == len(own):
                found[part] = total
            else:
                found[f"{part}, about"] = total.times(len(own) / len(counted))

    seen = start.seen
    if seen is not None and seen.held_out:
        captions = read_validation_captions(layout.captions, params.evaluate)
        held_out = dict.fromkeys(evaluation_texts(params, captions, []))
        classes = class_names(read_classes(layout.shards))
        add("held-out captions", held_out)
        everything = evaluation_texts(params, captions, classes)
        add("prompts of classes", [each for each in everything if each not in held_out])
    elif seen is not None and (number := _held_out_captions(params, seen)):
        found["held-out captions, about"] = cost("raw", start.lengths["raw"]).times(number)
    for each in collect(params, layout):
        kind = each.benchmark.text_kind.removesuffix(REFERENCE)
        add(f"benchmark {each.benchmark.name}", [(kind, text) for text in each.texts()])
    if params.text.center == "per_language" and seen is not None and seen.held_out:
        others = [code for code in seen.languages or {} if code != params.evaluate.train_language]
        jobs = language_jobs(layout.captions, others)
        add("captions of other languages", [("raw", text) for job in jobs for text in job.texts["raw"]])
    return found


def _held_out_captions(params: Params, seen: DataLook) -> float:
    """How many held-out captions are evaluated, from what the sources list."""
    if not seen.val or not seen.pairs or not seen.languages:
        return 0
    chosen = params.evaluate
    spoken = seen.languages if chosen.languages == "all" else {chosen.train_language, *chosen.languages}
    pictures = min(seen.val, chosen.max_pictures or seen.val)
    return sum(seen.languages.get(code, 0) for code in spoken) * pictures / seen.pairs


def _reader(params: Params, shape: LLMShape, count: Callable[[str], int]) -> Callable[[str, float], PartCost]:
    """A function: (kind, tokens of a text) -> the cost of reading the text, as a sentence too if sentences are read."""
    text, bytes_ = params.text, vector_bytes(params.text, shape)

    def cost(kind: Any, tokens: float) -> PartCost:
        read = sequence(text, kind, tokens, count)
        own = PartCost(read.packed, shape.flops(text.layer, read.packed, read.pairs), len(read.facets) * bytes_)
        if text.sentence is None or text.sentence_layer is None:
            return own
        read = sentence(text, tokens, count)
        pairs = (2 if text.sentence.bidirectional else 1) * read.pairs
        return own + PartCost(read.packed, shape.flops(text.sentence_layer, read.packed, pairs), bytes_)

    return cost
