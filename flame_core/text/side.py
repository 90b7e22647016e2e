"""The text side of a trained model: where the texts lie that its pictures are compared with.

There are three: facets of the frozen LLM, sentences of the frozen LLM (`frozen_texts`), and a text tower that was
trained along (`transformer`). Evaluation, `flame query` and served models know them by this protocol only, and
`measuring.text_side` alone says which one a model has. A text in another space would be answered with nonsense that
looks like an answer.
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
    """What a served model needs of its text side: files by the name that they get, and values of `serving.json`."""

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
    """Texts as one model knows them. A kind is a caption kind, or one with `@reference` behind it."""

    @property
    def dim(self) -> int:
        """D, the numbers of a vector."""
        ...

    @property
    def in_words(self) -> bool:
        """Whether the output matrix of the LLM names directions of this space."""
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
            InputError: names a text that was not.
        """
        ...

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """The same of any texts; the LLM is loaded if it is needed.

        Raises:
            InputError: it is needed and not here.
        """
        ...

    def save(self) -> Packed:
        """What `of_package` needs."""
        ...

    @classmethod
    def of_model(cls, model: Path, store: TextStore, encoder: OpenEncoder) -> Self:
        """That of the model in a folder, with the store of texts that were embedded for it."""
        ...

    @classmethod
    def of_package(cls, package: Path, values: Mapping[str, Any], encoder: OpenEncoder) -> Self:
        """That of a served model, from the files and values of `save`."""
        ...

    @classmethod
    def required(cls) -> Sequence[str]:
        """Names of the files without which a package has no text side."""
        ...

    @classmethod
    def card(cls, params: Params, recipe: TrainParams) -> CardLines:
        """What a model card says of it."""
        ...
