"""Words as the text side of a model whose recipe trained adapters on the LLM: texts are read by the LLM with them.

Sentences of the store are those of the LLM without adapters, so every text is read anew, and kept for the next lookup.
All words count, as in the training: only stored words of a frozen LLM are the heaviest ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from flame_core.errors import InputError
from flame_core.lexical.lexicon import read_lexicon
from flame_core.lexical.text_side import LexicalTexts
from flame_core.params import Params, TrainParams
from flame_core.text.adapter import Adapter
from flame_core.text.frozen_texts import SentenceTexts
from flame_core.text.llm_adapter import ADAPTER_FILES
from flame_core.text.sentence import SENTENCE
from flame_core.text.side import CardLines, OpenEncoder, Packed
from flame_core.text.store import TextStore


class _Sentences:
    """Sentences [N, 1, D] of the LLM with the adapters in a folder."""

    def __init__(self, frozen: SentenceTexts, folder: Path, encoder: OpenEncoder) -> None:
        self._frozen, self._folder, self._encoder = frozen, folder, encoder
        self._adapter = Adapter.read(folder)
        self._known: dict[str, np.ndarray] = {}  # in float16, as a store has them

    @property
    def cut_texts(self) -> Mapping[str, int]:
        return self._frozen.cut_texts

    def count(self, kind: str) -> int:
        return self._frozen.count(kind)

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known |= zip(new, self.encode(kind, new).astype(np.float16), strict=True)
        return np.stack([self._known[text] for text in texts]).astype(np.float32)

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        encoder = self._encoder()
        if encoder.sentence_pass is None:
            raise InputError("this model reads texts as sentences, and text.sentence is null")
        if encoder.llm_digest is not None:
            self._adapter.require_llm(encoder.llm_digest)
        with self._adapter.on(encoder.sentence_pass.model):
            return encoder.encode(SENTENCE, texts)

    def save(self) -> Packed:
        own = self._frozen.save()
        return Packed({**own.files, **{name: self._folder / name for name in ADAPTER_FILES}}, own.values)


class AdaptedTexts(LexicalTexts):
    """Unit vectors of words that the LLM with the model's adapters gives."""

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> Self:
        """The LLM with the model's adapters, and the words of its lexicon."""
        sentences = _Sentences(SentenceTexts.of_model(model, store, encoder), model, encoder)
        return cls(sentences, lexicon := read_lexicon(model), len(lexicon.vocabulary), model)

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> Self:
        """The LLM with the package's adapters, and the words of its lexicon."""
        sentences = _Sentences(SentenceTexts.of_package(package, values, encoder), package, encoder)
        return cls(sentences, lexicon := read_lexicon(package), len(lexicon.vocabulary), package)

    @classmethod
    def required(cls) -> Sequence[str]:
        """The lexicon and the adapters."""
        return (*super().required(), *ADAPTER_FILES)

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        own = super().card(params, recipe)
        rank = recipe.lora.rank if recipe.lora else 0
        return CardLines(
            model=own.model,
            texts=f"{own.texts}, with adapters of rank {rank} that were trained along and are included (LoRA)",
            reader="the LLM with the included adapters",
            limit=own.limit,
        )
