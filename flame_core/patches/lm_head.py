"""Finds words for vectors of the LLM's space, with the LLM's output matrix.

Only that matrix is read from the LLM's safetensors files, a block of rows at a time. A tied model has no `lm_head`: its
input embeddings are the same matrix. Only tokens that are a whole word of a given vocabulary are used, because many
others are only beginnings of words, which mean nothing to a reader.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.text.output_matrix import output_matrix

_ROWS = 16384  # of the matrix at once


class LMHead:
    """The words of a vocabulary (in lower case) by token of an LLM; empty if its tokenizer does not mark words.

    Raises:
        InputError: no file in the folder has such a matrix.
    """

    def __init__(self, folder: Path, tokenizer: Any, vocabulary: Container[str]) -> None:
        self._file, self._name = output_matrix(folder)
        self.words = {index: word for index, word in word_tokens(tokenizer).items() if word in vocabulary}

    def top_words(self, vectors: np.ndarray, count: int) -> list[list[str]]:
        """The `count` words with the largest logits for each of vectors [N, D], the first one first."""
        from safetensors import safe_open

        ids = np.array(sorted(self.words), dtype=np.int64)
        best = np.full((len(vectors), count), -np.inf, dtype=np.float32)
        chosen = np.zeros((len(vectors), count), dtype=np.int64)
        with safe_open(self._file, "pt") as file:
            matrix = file.get_slice(self._name)
            rows = matrix.get_shape()[0]
            for start in range(0, rows, _ROWS):
                own = ids[(ids >= start) & (ids < min(start + _ROWS, rows))]
                if not len(own):
                    continue
                block = matrix[start : start + _ROWS].float().numpy()[own - start]
                scores = np.concatenate([best, vectors @ block.T], axis=1)
                known = np.concatenate([chosen, np.broadcast_to(own, (len(vectors), len(own)))], axis=1)
                order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
                best, chosen = np.take_along_axis(scores, order, 1), np.take_along_axis(known, order, 1)
        return [[self.words[token] for token in row] for row in chosen.tolist()]

    def vectors(self, tokens: Sequence[int]) -> np.ndarray:
        """The rows of the output matrix of tokens, [n, D] in float32."""
        from safetensors import safe_open

        with safe_open(self._file, "pt") as file:
            matrix = file.get_slice(self._name)
            return np.concatenate([matrix[token : token + 1].float().numpy() for token in tokens])


def word_tokens(tokenizer: Any) -> dict[int, str]:
    """{id: word} of the tokens that begin a word and have three or more letters."""
    found: dict[int, str] = {}
    for token, index in tokenizer.get_vocab().items():
        if token[:1] in ("Ġ", "▁", " ") and len(token) > 3:
            word = tokenizer.decode([index]).strip()
            if len(word) >= 3 and word.isalpha():
                found[index] = word.lower()
    return found
