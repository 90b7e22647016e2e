"""The lexicon: the words, their rows of the LLM's output matrix, and how a text's vector becomes weights of words.

    logits = length * rows t - mean

t [D] is the unit vector of the text's last token after the LLM's final norm; `length` is what the norm gives to such
vectors, and `mean` each word's mean logit over the training captions (`lexical.center`), or zero. Two files, beside the
captions' words and in a model's folder:

    lexicon.safetensors   rows [V, D] in the LLM's type, mean [V] and length [1] in float64
    words.parquet         token, text, begins: of each word
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.digest import bytes_sha256, value_digest
from flame_core.errors import InputError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.lexical import LEXICON, LEXICON_FILES, WORDS
from flame_core.lexical.values import GRID
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.text.output_matrix import norm_length, output_matrix

if TYPE_CHECKING:
    from torch import Tensor

_SCHEMA = pa.schema({"token": pa.int32(), "text": pa.string(), "begins": pa.bool_()})
_BLOCK = 4096  # words at once
_MEAN_GRID = 2**20
_ROWS = 2**25  # numbers of logits at once: 256 MB in float64


@dataclass(frozen=True)
class Lexicon:
    """V words with their rows [V, D], means [V] in float64, and the length of the texts' vectors."""

    vocabulary: Vocabulary
    rows: Tensor
    mean: np.ndarray
    length: float

    @property
    def dims(self) -> int:
        """D, the LLM's."""
        return self.rows.shape[1]

    @property
    def at_once(self) -> int:
        """Texts whose logits are computed at once."""
        return max(1, _ROWS // len(self.vocabulary))

    def logits(self, t: np.ndarray) -> np.ndarray:
        """Logits [N, V] in float32 of unit vectors t [N, D], on the grid of `values`."""
        return (np.rint((self.length * (t.astype(np.float64) @ self._exact.T) - self.mean) * GRID) / GRID).astype(
            np.float32
        )

    @cached_property
    def _exact(self) -> np.ndarray:
        return self.rows.double().numpy()

    def centred(self, sums: np.ndarray, count: int) -> Lexicon:
        """The same words, less their mean logits over vectors with the sum `sums` [D]."""
        mean = np.rint(self.length * (self._exact @ (sums / count)) * _MEAN_GRID) / _MEAN_GRID
        return Lexicon(self.vocabulary, self.rows, mean, self.length)

    def only(self, places: np.ndarray) -> Lexicon:
        """The lexicon of the words at these places."""
        import torch

        chosen = np.sort(places)
        rows = self.rows[torch.from_numpy(chosen)]
        return Lexicon(self.vocabulary.only(chosen), rows, self.mean[chosen], self.length)

    def heaviest_words(self, vectors: np.ndarray) -> np.ndarray:
        """Of vectors [..., V], the text of the heaviest word of each, [...]."""
        texts = np.array([word.text for word in self.vocabulary.words], dtype=object)
        return texts[vectors.argmax(axis=-1)]

    @cached_property
    def digest(self) -> str:
        """Digest of the files."""
        return value_digest({name: bytes_sha256(content) for name, content in self.files().items()})

    def files(self) -> dict[str, bytes]:
        """{name: content}; equal values give equal bytes."""
        import torch
        from safetensors.torch import save

        mean, length = torch.from_numpy(self.mean.copy()), torch.tensor([self.length], dtype=torch.float64)
        words = [vars(word) for word in self.vocabulary.words]
        tensors = {"rows": self.rows.contiguous(), "mean": mean, "length": length}
        return {LEXICON: save(tensors), WORDS: parquet_bytes(pa.Table.from_pylist(words, schema=_SCHEMA))}


def lexicon_of(folder: Path, vocabulary: Vocabulary) -> Lexicon:
    """The lexicon of an LLM's folder, not centred; only its output matrix and its final norm are read.

    Raises:
        InputError: the folder lacks one of them.
    """
    import torch
    from safetensors import safe_open

    file, name = output_matrix(folder)
    tokens = torch.tensor([word.token for word in vocabulary.words])
    parts = []
    with safe_open(file, "pt") as opened:
        matrix = opened.get_slice(name)
        for start in range(0, matrix.get_shape()[0], _BLOCK):
            own = tokens[(tokens >= start) & (tokens < start + _BLOCK)] - start
            parts.append(matrix[start : start + _BLOCK][own])
    return Lexicon(vocabulary, torch.cat(parts), np.zeros(len(vocabulary)), norm_length(folder))


def count_words(folder: Path) -> int:
    """V of the lexicon in a folder, without reading its rows."""
    return pq.read_metadata(folder / WORDS).num_rows


def read_lexicon(folder: Path) -> Lexicon:
    """The lexicon in a folder of `flame lexical`, or of a model.

    Raises:
        InputError: a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in LEXICON_FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: name the folder that `flame lexical` made, or make it again")
    try:
        tensors = load_file(folder / LEXICON)
        words = tuple(Word(**row) for row in pq.read_table(folder / WORDS).cast(_SCHEMA).to_pylist())
        mean, length = tensors["mean"].numpy(), float(tensors["length"][0])
        if not len(words) == len(tensors["rows"]) == len(mean):
            raise ValueError("other words than rows")
        return Lexicon(Vocabulary(words), tensors["rows"], mean, length)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, SafetensorError) as error:
        raise InputError(f"{folder}: its lexicon is damaged ({error}); run `flame lexical` again") from None
