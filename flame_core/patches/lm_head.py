"""Finds words for vectors of the LLM's space, with the LLM's output matrix.

Only that matrix is read from the LLM's safetensors files, a block of rows at a time. A tied model has no `lm_head`: its
input embeddings are the same matrix. Only tokens that are a whole word of a given vocabulary are used, because many
others are only beginnings of words, which mean nothing to a reader.
"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.errors import InputError

_ROWS = 16384  # of the matrix at once
_NAMES = ("lm_head.weight", "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")


class LMHead:
    """The words of a vocabulary (in lower case) by token of an LLM; empty if its tokenizer does not mark words.

    Raises:
        InputError: no file in the folder has such a matrix.
    """

    def __init__(self, folder: Path, tokenizer: Any, vocabulary: Container[str]) -> None:
        self._file, self._name = _find(folder)
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


def word_tokens(tokenizer: Any) -> dict[int, str]:
    """{id: word} of the tokens that begin a word and have three or more letters."""
    found: dict[int, str] = {}
    for token, index in tokenizer.get_vocab().items():
        if token[:1] in ("Ġ", "▁", " ") and len(token) > 3:
            word = tokenizer.decode([index]).strip()
            if len(word) >= 3 and word.isalpha():
                found[index] = word.lower()
    return found


def _find(folder: Path) -> tuple[Path, str]:
    """(file, tensor) of the output matrix."""
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        weights: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        places |= {name: folder / file for name, file in weights.items()}
    if not places:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                places |= dict.fromkeys(file.keys(), path)
    for wanted in _NAMES:
        for name, path in sorted(places.items()):
            if name == wanted or name.endswith(f".{wanted}"):
                return path, name
    raise InputError(f"{folder}: no output matrix (none of {', '.join(_NAMES)}) in its safetensors files")
