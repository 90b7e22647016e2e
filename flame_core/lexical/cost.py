"""What `flame lexical` costs: the logits of all captions over the LLM's words, and the sidecar of the heaviest ones."""

from __future__ import annotations

from flame_core.lexical.vocabulary import LARGEST
from flame_core.params import LexicalParams
from flame_core.quantities import core_time, size_text
from flame_core.text.cost import LLMShape

_BYTES = 4  # of a word of a caption


def lexical_section(params: LexicalParams, shape: LLMShape, captions: int, samples: int) -> dict[str, dict[str, str]]:
    """A title, and the cost at most for so many captions of each sample: all tokens of the LLM may be words."""
    vocabulary = min(shape.vocabulary, LARGEST)
    words = min(params.words or vocabulary, vocabulary)
    read = samples * captions
    flops = 2.0 * shape.hidden * read * (words + (vocabulary if words < vocabulary else 0))
    values = {
        "captions": f"{read:,}",
        "FLOPs": f"{flops:.3g}",
        "time of one core": core_time(flops),
        "sidecar": size_text(read * params.top * _BYTES),
    }
    return {f"words: {params.top:,} of at most {words:,} per caption": values}
