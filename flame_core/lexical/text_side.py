"""Words as a model's text side: a text's sentence vector, and the words that the model's lexicon makes of it.

Texts of every language have words of the one vocabulary; whether they are the right ones depends on the LLM.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from flame_core.lexical import LEXICON_FILES
from flame_core.lexical.lexicon import Lexicon, read_lexicon
from flame_core.lexical.values import dense, pack
from flame_core.model_files import CONFIG
from flame_core.params import Params, TrainParams
from flame_core.text.frozen_texts import SentenceTexts
from flame_core.text.side import CardLines, OpenEncoder, Packed
from flame_core.text.store import TextStore, unit

TOP = "top_words"  # in a model's config


class Sentences(Protocol):
    """Texts as unit vectors [N, 1, D] of the LLM; the methods are those of `TextSide`."""

    @property
    def cut_texts(self) -> Mapping[str, int]: ...
    def count(self, kind: str) -> int: ...
    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray: ...
    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray: ...
    def save(self) -> Packed: ...


class LexicalTexts:
    """Unit vectors of words; `lexicon` says which."""

    in_words = False  # the LLM's matrix; here dimensions are words already
    by_facet = False

    def __init__(self, sentences: Sentences, lexicon: Lexicon, top: int, folder: Path) -> None:
        self.lexicon = lexicon
        self.dim = len(lexicon.vocabulary)
        self._sentences, self._top, self._folder = sentences, top, folder

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> Self:
        """Sentences of the store, and the words of the model's own lexicon."""
        return cls(SentenceTexts.of_model(model, store, encoder), read_lexicon(model), words_kept(model), model)

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> Self:
        """Sentences of the LLM, and the words of the package's lexicon."""
        sentences = SentenceTexts.of_package(package, values, encoder)
        return cls(sentences, read_lexicon(package), words_kept(package), package)

    @classmethod
    def required(cls) -> Sequence[str]:
        """The lexicon."""
        return LEXICON_FILES

    @property
    def cut_texts(self) -> Mapping[str, int]:
        """{benchmark: number of its texts whose end is not read}."""
        return self._sentences.cut_texts

    def count(self, kind: str) -> int:
        """K of a kind: 1."""
        return self._sentences.count(kind)

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, 1, V] of texts in the store.

        Raises:
            InputError: names a text that is not in the store.
        """
        return self._words(self._sentences.lookup(kind, texts))

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, 1, V] of any texts; the LLM is loaded if it is needed."""
        return self._words(self._sentences.encode(kind, texts))

    def save(self) -> Packed:
        """The lexicon, and what sentences need."""
        own = self._sentences.save()
        files = {name: self._folder / name for name in LEXICON_FILES}
        return Packed({**own.files, **files}, own.values)

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        own = SentenceTexts.card(params, recipe)
        return CardLines(
            model="An image encoder into words of a frozen large language model's vocabulary (LexVLA, NeurIPS 2024).",
            texts=f"{own.texts}, as weights of words",
            reader=own.reader,
            limit=own.limit,
        )

    def _words(self, t: np.ndarray) -> np.ndarray:
        flat = t.reshape(-1, t.shape[-1])
        parts = [
            dense(pack(self.lexicon.logits(flat[start : start + self.lexicon.at_once]), self._top), self.dim)
            for start in range(0, len(flat), self.lexicon.at_once)
        ]
        return unit(np.concatenate(parts)).reshape(*t.shape[:-1], self.dim)


def words_kept(model: Path) -> int:
    """How many words a text of a model keeps, from its config."""
    return json.loads((model / CONFIG).read_text("utf-8"))[TOP]
