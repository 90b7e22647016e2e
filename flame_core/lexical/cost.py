"""What `flame lexical` costs: the logits of all captions over the LLM's words, and the sidecar of the heaviest ones."""

from __future__ import annotations

import numpy as np

from flame_core.data.stand_in_sidecar import StandInSidecar
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.vocabulary import LARGEST, Vocabulary, Word
from flame_core.params import LexicalParams
from flame_core.quantities import core_time, size_text
from flame_core.text.cost import LLMShape

_BYTES = 4  # of a word of a caption


def lexical_section(params: LexicalParams, shape: LLMShape, captions: int, samples: int) -> dict[str, dict[str, str]]:
    """A title, and the cost at most for so many captions of each sample: all tokens of the LLM may be words."""
    vocabulary = min(shape.vocabulary, LARGEST)
    words = _words(params, shape)
    read = samples * captions
    flops = 2.0 * shape.hidden * read * (words + (vocabulary if words < vocabulary else 0))
    values = {
        "captions": f"{read:,}",
        "FLOPs": f"{flops:.3g}",
        "time of one core": core_time(flops),
        "sidecar": size_text(read * params.top * _BYTES),
    }
    return {f"words: {params.top:,} of at most {words:,} per caption": values}


def words_stand_in(params: LexicalParams, shape: LLMShape, captions: int, pictures: int) -> StandInSidecar:
    """Words of so many captions of each picture, and the lexicon."""
    import torch

    count = _words(params, shape)
    vocabulary = Vocabulary(tuple(Word(token, "", True) for token in range(count)))
    rows = torch.zeros(count, shape.hidden, dtype=torch.bfloat16)
    values = np.zeros((pictures, captions, min(params.top, count)), np.int32)
    return StandInSidecar("lexical", values, beside=Lexicon(vocabulary, rows, np.zeros(count), 1.0).files())


def _words(params: LexicalParams, shape: LLMShape) -> int:
    """V at most."""
    vocabulary = min(shape.vocabulary, LARGEST)
    return min(params.words or vocabulary, vocabulary)
