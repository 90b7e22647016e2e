"""The text side of a trained model: the source of the text vectors that its pictures are compared with.

There are five: facets and sentences of the frozen LLM (`frozen_texts`), words that it gives to a sentence
(`lexical.text_side`), words of the LLM with adapters (`lexical.adapted_texts`), and a text tower trained with the image
tower (`transformer`). Evaluation, `flame query` and served models know them only by this protocol, and only
`measuring.text_side` determines which one a model has. Vectors from another space would give meaningless similarities
that look like results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from flame_core.params import Params, TrainParams

if TYPE_CHECKING:
    from flame_core.text.encoder import TextEncoder
    from flame_core.text.store import TextStore

OpenEncoder = Callable[[], "TextEncoder"]  # loads the frozen LLM, the first time that it is called


@dataclass(frozen=True)
class Packed:
    """What a served model needs from its text side: files, by their new names, and values for `serving.json`."""

    files: Mapping[str, Path]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CardLines:
    """Sentences of a model card: what the model is, its text side, who reads texts, and what limits that."""

    model: str
    texts: str
    reader: str
    limit: str


class TextSide(Protocol):
    """Texts in the space of one model. A kind is a caption kind, or one followed by `@reference`."""

    @property
    def dim(self) -> int:
        """D, the number of dimensions."""
        ...

    @property
    def in_words(self) -> bool:
        """Whether the LLM's output matrix gives words for directions of this space."""
        ...

    @property
    def by_facet(self) -> bool:
        """Whether the prompts of a kind give a text vectors of their own; else all K of it are equal."""
        ...

    @property
    def cut_texts(self) -> Mapping[str, int]:
        """{benchmark: number of its texts whose end is not read}."""
        ...

    def count(self, kind: str) -> int:
        """K of a kind: how many vectors a text has."""
        ...

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [N, K, D] in float32 of texts that were embedded for evaluation, without the LLM.

        Raises:
            InputError: names a text that was not embedded.
        """
        ...

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """As `lookup`, for any texts; the LLM is loaded if it is needed.

        Raises:
            InputError: the LLM is needed but not available.
        """
        ...

    def save(self) -> Packed:
        """What `of_package` needs."""
        ...

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> Self:
        """The text side of the model in a folder, with the store of texts that were embedded for it."""
        ...

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> Self:
        """The text side of a served model, from the files and values of `save`."""
        ...

    @classmethod
    def required(cls) -> Sequence[str]:
        """Names of the files without which a package has no text side."""
        ...

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says about it."""
        ...
