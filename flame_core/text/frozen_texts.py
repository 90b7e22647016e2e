"""Texts of the frozen LLM as a model's text side: by facets, or as sentences.

Texts that were embedded for evaluation come from the store; others are computed by the LLM, which is loaded when first
needed. Both are centred in the same way, by the means of the vectors that the recipe was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from flame_core.errors import InputError
from flame_core.markdown import code_span
from flame_core.model_files import CONFIG
from flame_core.params import Params, Reading, TrainParams
from flame_core.text.side import CardLines, OpenEncoder, Packed
from flame_core.text.store import CENTER, CUT_SENTENCES, Centring, TextStore, asked_kind, slots_of


class FrozenTexts:
    """The part that both readings share."""

    reading: ClassVar[Reading]
    in_words: ClassVar[bool]
    by_facet: ClassVar[bool]

    def __init__(
        self,
        text_facets: Sequence[str],
        hidden: int,
        centring: Centring,
        encoder: OpenEncoder,
        store: TextStore | None = None,
    ) -> None:
        """Take the names of all facets, D, the centring of vectors, the LLM, and a store, if there is one."""
        self.dim = hidden
        self._text_facets, self._centring, self._encoder, self._store = list(text_facets), centring, encoder, store

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> Self:
        """Texts of the store, and of the LLM that it was made with."""
        manifest = store.manifest
        return cls(manifest["text_facets"], manifest["hidden"], store.centring_of(cls.reading), encoder, store)

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> Self:
        """Texts of the LLM only: a package holds no store.

        Raises:
            InputError: the model's texts are centred, and the means are missing.
        """
        if values["text"]["center"] != "none" and not (package / CENTER).is_file():
            raise InputError(
                f"{package / CENTER} is missing, by which this model's texts are centred; "
                "run `flame evaluate` to pack it"
            )
        hidden: int = json.loads((package / CONFIG).read_text("utf-8"))["hidden"]
        return cls(values["text_facets"], hidden, Centring.of_file(values["facets"], package / CENTER), encoder)

    @classmethod
    def required(cls) -> Sequence[str]:
        """No files: vectors that are not centred need none."""
        return ()

    @property
    def cut_texts(self) -> Mapping[str, int]:
        """{benchmark: number of its texts whose end is not read}, from the store's manifest."""
        return {} if self._store is None else self._store.manifest.get(self._cut_key(), {})

    def count(self, kind: str) -> int:
        """K of a kind: how many vectors a text has."""
        return len(slots_of(kind, self.reading, self._text_facets))

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K, D] of texts in the store.

        Raises:
            InputError: names a text that is not in the store.
        """
        if self._store is None:
            raise InputError("a served model holds no texts; ask it to encode them")
        return self._store.lookup(kind, texts, self.reading)

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K, D] of any texts: from the store if it holds them all, else from the LLM."""
        asked = asked_kind(kind, self.reading)
        if self._store is not None and all((asked, text) in self._store for text in texts):
            return self._store.lookup(kind, texts, self.reading, by_language=False)
        t = self._encoder().encode(asked, texts)
        return self._centring.applied(t, slots_of(kind, self.reading, self._text_facets))

    def save(self) -> Packed:
        """The means that vectors are centred by, and the names of the slots that they belong to."""
        file = self._centring.file
        values = {"text_facets": self._text_facets, "facets": self._centring.names}
        return Packed({} if file is None else {CENTER: file}, values)

    @classmethod
    def _cut_key(cls) -> str:
        raise NotImplementedError


class FacetTexts(FrozenTexts):
    """Facets: K vectors per text, each the LLM's answer to a prompt about it."""

    reading, in_words, by_facet = "facets", True, True

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        return _card(params, "FLAME, CVPR 2025", f"hidden states of layer {params.text.layer}")

    @classmethod
    def _cut_key(cls) -> str:
        return "cut_texts"


class SentenceTexts(FrozenTexts):
    """Sentences: one vector per text, whatever its kind. Facet vectors are never read."""

    reading, in_words, by_facet = "sentence", False, False

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        read = params.text.sentence.read if params.text.sentence else ""
        how = {"last": "the last token", "mean": "the mean over the tokens"}.get(read, "sentences")
        return _card(params, "one vector per text", f"{how} at layer {params.text.sentence_layer}")

    @classmethod
    def _cut_key(cls) -> str:
        return CUT_SENTENCES


def _card(params: Params, method: str, what: str) -> CardLines:
    adapted = params.adapt_llm is not None
    kept = (
        "frozen after it learned to embed captions; only its adapters are included"
        if adapted
        else "frozen, not included"
    )
    return CardLines(
        model=f"An image encoder in the text space of a frozen large language model ({method}).",
        texts=f"{code_span(params.llm.source)}, {what}, {kept}",
        reader="the LLM with the included adapters" if adapted else "the LLM",
        limit="Texts other than the cached class names need the LLM named above at query time.",
    )
