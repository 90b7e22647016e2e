"""A trained model that encodes pictures and texts into one space.

    import flame_core

    model = flame_core.load("models:/flame@champion")
    z = model.encode_image(["bird.jpg", "boat.png"])        # [2, D]
    t = model.encode_text("ein kleiner Vogel")              # [1, D]
    model.similarity(z, t)                                  # [2, 1] cosines

Its parts are loaded when they are first needed: the image tower by `open`, the frozen LLM by the first text that is
not stored (a model with a text tower of its own never needs it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.digest import file_sha256, value_digest
from flame_core.errors import InputError
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.text_side import LexicalTexts
from flame_core.measuring.similarity import similarities
from flame_core.model.given_pictures import Picture, as_list, prepared
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import IngestParams
from flame_core.text.caption_tokens import require_content
from flame_core.text.jobs import facet_count

if TYPE_CHECKING:
    from flame_core.text.side import TextSide
    from flame_core.vision.image_encoder import ImageEncoder

BATCH = 32  # pictures at a time, also the last ones: a vector's last bits depend on the size of its batch
_CHUNK = 8 * BATCH  # pictures whose bytes are held at once


@dataclass(frozen=True)
class Parts:
    """What computes: the image tower, and the text side that the model was trained with."""

    encoder: ImageEncoder
    side: TextSide


class Model:
    """A trained model.

    Attributes:
        name: as it was asked for.
        folder: with its weights and its config.
        config: content of `config.json`.
        ingest: how pictures are prepared.
        text: content of the params by which texts are read (`text`, `llm`), and what else decides over their vectors.
        version: in MLflow, `models:/flame/3`, also if it was asked for by an alias; None of a folder.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        ingest: IngestParams,
        text: Mapping[str, Any],
        config: Mapping[str, Any],
        open_parts: Callable[[], Parts],
        version: str | None = None,
    ) -> None:
        self.name, self.folder, self.ingest, self.text, self.config = name, folder, ingest, text, config
        self.version = version
        self._open_parts = open_parts
        self._state = self._files_now()

    def __repr__(self) -> str:
        return f"Model({self.title!r}, {self.dim} dimensions)"

    @property
    def title(self) -> str:
        """Its name, and its version if the name is an alias, which may be another version's tomorrow."""
        return f"{self.name} ({self.version})" if self.version not in (None, self.name) else self.name

    @property
    def dim(self) -> int:
        """D, the numbers of a vector."""
        return self.config.get("words", self.config.get("dim", self.config["hidden"]))

    @property
    def facets(self) -> int:
        """F, the facets of a picture that its tower has a vector for; 0 with the paper's tower."""
        model = self.config["recipe"]["model"]
        return 0 if model.get("facet_blocks") is None else facet_count(self.config["facets"])

    @property
    def encoder(self) -> ImageEncoder:
        """The image tower."""
        return self._parts.encoder

    @property
    def side(self) -> TextSide:
        """The text side."""
        return self._parts.side

    @property
    def lexicon(self) -> Lexicon | None:
        """The words that are the dimensions of its vectors; None of a model with other dimensions."""
        side = self.side
        return side.lexicon if isinstance(side, LexicalTexts) else None

    def open(self) -> None:
        """Load the image tower now; an error of its files comes now too.

        Raises:
            InputError: a file is missing or damaged, or does not fit the project.
        """
        _ = self._parts

    def encode_image(self, pictures: Picture | Iterable[Picture]) -> np.ndarray:
        """Unit vectors [N, D] in float32 of one picture or many: paths, bytes of files, or PIL pictures.

        Raises:
            InputError: names the picture that cannot be read, and why.
        """
        return self.image_views(pictures)[:, 0]

    def encode_text(self, texts: str | Iterable[str]) -> np.ndarray:
        """Unit vectors [N, D] in float32 of one text or many, in any language that the model's text side reads.

        Raises:
            InputError: the frozen LLM is needed and not here; says where it is looked for.
        """
        return self.text_views("raw", [texts] if isinstance(texts, str) else list(texts))[:, 0]

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Cosines [N, M] in float32 of unit vectors [N, D] and [M, D]."""
        return similarities(first, second).astype(np.float32)

    def image_views(self, pictures: Picture | Iterable[Picture]) -> np.ndarray:
        """[N, 1 + F, D]: of each picture the vector of the whole, then those of its F facets, if its tower has any."""
        given, found = as_list(pictures), []
        for first in range(0, len(given), _CHUNK):
            part = given[first : first + _CHUNK]
            jpegs = [prepared(each, place, self.ingest) for place, each in enumerate(part, start=first)]
            few = len(given) < BATCH // 4  # filling the batch would take longer than it is worth
            found.append(self.encoder.encode_facets(jpegs) if few else self.encode_prepared(jpegs))
        return np.concatenate(found)

    def encode_prepared(self, jpegs: Sequence[bytes]) -> np.ndarray:
        """The same of pictures that are prepared already (`given_pictures`).

        Every batch has the same size, so that a vector does not depend on the other pictures.
        """
        filled = [*jpegs, *[jpegs[-1]] * (-len(jpegs) % BATCH)]
        return self.encoder.encode_facets(filled, BATCH)[: len(jpegs)]

    def text_views(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """[N, K, D]: texts as ones of a caption kind, one vector per facet prompt of that kind.

        Raises:
            InputError: there is none, one is empty, or their text side is missing.
        """
        if not texts:
            raise InputError("no texts to encode: the list is empty")
        if wrong := [place for place, text in enumerate(texts) if not isinstance(text, str)]:
            raise InputError(f"text {wrong[0]} is {type(texts[wrong[0]]).__name__}, not str")
        for place, text in enumerate(texts):
            require_content(text, f"text {place}")
        return np.asarray(self._parts.side.encode(kind, texts), np.float32)

    @property
    def of_pictures(self) -> str:
        """Digest of all that a picture's vector depends on besides the picture."""
        return value_digest({**self.tower_digests, "ingest": self.ingest.model_dump(mode="json")})

    @property
    def of_texts(self) -> str:
        """Digest of all that a text's vector depends on besides the text; the config names the LLM by its digest."""
        return value_digest({**self._digests, "text": self.text})

    @property
    def tower_digests(self) -> dict[str, str]:
        """sha256 of the files that decide over pictures' vectors, by name."""
        return {name: self._digests[name] for name in (CONFIG, WEIGHTS)}

    def outdated(self) -> str | None:
        """Why the files are no longer those that this model began with; None if they are."""
        now = self._files_now()
        if CONFIG not in now or WEIGHTS not in now:
            return f"{self.folder} is not there, as while {self.name} is trained anew"
        return None if now == self._state else f"{self.name} was trained anew since it was opened"

    @cached_property
    def _digests(self) -> dict[str, str]:
        """sha256 of all files that compute, by name."""
        self._require_current()
        found = {name: file_sha256(self.folder / name) for name in self._state}
        self._require_current()
        return found

    @cached_property
    def _parts(self) -> Parts:
        _ = self._digests  # of the same files
        parts = self._open_parts()
        self._require_current()
        return parts

    def _require_current(self) -> None:
        if (why := self.outdated()) is not None:
            raise InputError(f"{why}: open it again")

    def _files_now(self) -> dict[str, tuple[int, int, int]]:
        """What changes if a file that computes is replaced, by name."""
        try:
            names = [CONFIG, *(path.name for path in self.folder.iterdir() if path.suffix == ".safetensors")]
            states = {name: (self.folder / name).stat() for name in sorted(names)}
        except OSError:
            return {}
        return {name: (state.st_ino, state.st_mtime_ns, state.st_size) for name, state in states.items()}
