"""The LLM's words as a codebook: rows of its output matrix for the most frequent words of the captions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flame_core.codes.caption_words import by_frequency, word_counts
from flame_core.codes.patch_tokens import PatchTower
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import LLMParams, Params
from flame_core.patches.lm_head import LMHead
from flame_core.text.llm import SOURCE, load_tokenizer


class WordVectors(NamedTuple):
    """Words, and their rows of the LLM's output matrix, [K, D] in float32."""

    words: list[str]
    vectors: np.ndarray


def read_words(params: Params, layout: Layout, most: int) -> WordVectors:
    """The `most` most frequent words of the training captions that are one token of the LLM, and their vectors.

    Raises:
        InputError: the LLM is not there, or none of the captions' words is a token of it.
    """
    folder = layout.llm / params.llm.name
    if not (folder / SOURCE).is_file():
        raise InputError(f"{folder / SOURCE} is missing: run `flame fetch-llm`, or choose codes.codebook kmeans")
    counts = word_counts(layout.captions / "train", params.evaluate.train_language)
    head = LMHead(folder, load_tokenizer(folder, params.llm), counts)
    tokens: dict[str, int] = {}
    for token, word in sorted(head.words.items()):
        tokens.setdefault(word, token)
    words = [word for word in by_frequency(counts) if word in tokens][:most]
    if len(words) < 2:
        raise InputError(
            f"{folder}: {len(words)} words of the captions are a token of this LLM, so they are no codebook: choose "
            "codes.codebook kmeans"
        )
    return WordVectors(words, head.vectors([tokens[word] for word in words]))


def require_same_llm(tower: PatchTower, llm: LLMParams) -> None:
    """Refuse a tower that projects into another LLM's space, where these words are other directions.

    Raises:
        InputError: names both LLMs.
    """
    theirs, ours = getattr(tower, "llm", {}), {"name": llm.name, "source": llm.source}
    if wrong := [name for name, value in ours.items() if theirs.get(name) != value]:
        raise InputError(
            f"codes.codebook words: {tower.name} was trained into the space of {theirs.get(wrong[0])!r}, and llm."
            f"{wrong[0]} is {ours[wrong[0]]!r}; take a tower of the same LLM, or codebook kmeans"
        )
