"""Pictures and texts to embeddings, similarities or zero-shot labels, from a packaged model (`package`).

A model with its own text tower embeds texts with it. For any other model, texts other than the cached class texts need
the frozen LLM: `FLAME_SERVING_LLM` names its folder (`data/llm/<name>`).

A request cannot make the server read files, unless `FLAME_SERVING_PATHS` names a folder: then pictures in it may be
given by path. Error messages are for the client: they repeat its own input and say nothing about this machine.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.data.picture_decoding import PictureError, read_picture
from flame_core.errors import FlameError, InputError
from flame_core.measuring.similarity import best_candidates
from flame_core.measuring.text_side import side_in
from flame_core.names import shown
from flame_core.params import IngestParams, LLMParams, TextParams
from flame_core.serving.package import CLASS_TENSOR, CLASSES, SERVING, require_package
from flame_core.settings import settings
from flame_core.text.caption_tokens import require_content
from flame_core.text.llm_adapter import packed_adapter
from flame_core.text.tensor_file import TensorFile
from flame_core.vision.image_encoder import load_encoder

if TYPE_CHECKING:
    from flame_core.text.encoder import TextEncoder

LLM_VARIABLE = "FLAME_SERVING_LLM"
PATHS_VARIABLE = "FLAME_SERVING_PATHS"
MOST_ROWS = 10_000  # per request
MOST_BYTES = 64 * 2**20  # per picture, as it is sent
MOST_CHARS = 20_000  # per text; more than any LLM here reads
log = logging.getLogger(__name__)


class Predictor:
    """A packaged model in memory.

    Attributes:
        classes: names of the classes that `label` knows.
        encoder: of pictures.
        ingest: how pictures are prepared.
        side: of texts.
    """

    def __init__(
        self, folder: Path, open_llm: Callable[[LLMParams, TextParams, Path | None], TextEncoder] | None = None
    ) -> None:
        """Load what `folder` holds.

        `open_llm` gives the frozen LLM, with the adapters in a folder, if `FLAME_SERVING_LLM` is not to name it.
        """
        require_package(folder)
        content: dict[str, Any] = json.loads((folder / SERVING).read_text("utf-8"))
        self.classes: list[str] = content["classes"]
        self._class_texts = TensorFile(folder / CLASSES).read(CLASS_TENSOR, slice(None))  # [C, D]
        self.encoder = load_encoder(folder, settings().torch_device())
        self.ingest = IngestParams.model_validate(content["ingest"])
        self._llm = LLMParams.model_validate(content["llm"])
        self._text = TextParams.model_validate(content["text"])
        self._open_llm = open_llm
        self._folder = folder
        self.side = side_in(folder).of_package(folder, content, lambda: self._llm_encoder)

    def pictures(self, images: Sequence[str | bytes], rows: Sequence[int] | None = None) -> np.ndarray:
        """Unit vectors z [N, D] of pictures: bytes, base64 (or a data: URI), or a path if paths are on.

        `rows` are their places in the request, if they are not 0 to N - 1.

        Raises:
            InputError: names the picture by its position in the request, and what is wrong with it.
        """
        _require_few(len(images), "pictures")
        places = range(len(images)) if rows is None else rows
        return self.encoder.encode([self._jpeg(image, place) for place, image in zip(places, images, strict=True)])

    def texts(self, texts: Sequence[str], rows: Sequence[int] | None = None) -> np.ndarray:
        """Unit vectors [N, D] of texts, as in training: from the text tower, or from the recipe's reading of the LLM.

        `rows` are their places in the request, if they are not 0 to N - 1.

        Raises:
            InputError: names the text by its position in the request, and what is wrong with it; or the LLM is needed
                but not available, and how to name its folder.
        """
        _require_few(len(texts), "texts")
        for place, text in zip(range(len(texts)) if rows is None else rows, texts, strict=True):
            require_content(text, f"text {place}")
            if len(text) > MOST_CHARS:
                raise InputError(f"text {place}: {len(text):,} characters are more than {MOST_CHARS:,}")
        return self.side.encode("raw", list(texts))[:, 0]

    def labels(self, z: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The classes nearest to pictures z [N, D] and their cosines, both [N, top]; ties are in the classes' order.

        Raises:
            InputError: the model was evaluated without classes, so it has no class texts.
        """
        if not self.classes:
            raise InputError("this model holds no class texts: its held-out pictures had no categories")
        return best_candidates(z, self._class_texts, top)

    @cached_property
    def _llm_encoder(self) -> TextEncoder:
        from flame_core.text.encoder import TextEncoder

        adapter = packed_adapter(self._folder, self.encoder.config.get("llm") or {})
        if self._open_llm is not None:
            return self._open_llm(self._llm, self._text, adapter)
        named = os.environ.get(LLM_VARIABLE)
        if not named or not Path(named).is_dir():
            now = "is not there" if named else "is not set"
            raise InputError(
                f"texts need the frozen LLM {self._llm.name}: {LLM_VARIABLE} names its folder "
                f"(`data/llm/{self._llm.name}` after `flame fetch-llm`), which {now} now; pictures and zero-shot "
                "labels need none"
            )
        device = settings().torch_device()
        try:
            return TextEncoder.load(Path(named), self._text, self._llm, device, adapter=adapter)
        except FlameError as error:
            log.error("%s: %s", LLM_VARIABLE, error)
            raise InputError(
                f"texts need the frozen LLM {self._llm.name}, which cannot be loaded here; the log says why"
            ) from error

    def _jpeg(self, image: str | bytes, place: int) -> bytes:
        content = image if isinstance(image, bytes) else _content(image, place)
        if len(content) > MOST_BYTES:
            raise InputError(f"picture {place}: {len(content):,} bytes are more than {MOST_BYTES:,}")
        try:
            picture = read_picture(content, self.ingest)
        except PictureError as error:
            raise InputError(f"picture {place}: {error.reason}: {error.detail}") from None
        return picture.jpeg or content


def _require_few(number: int, what: str) -> None:
    if not number:
        raise InputError(f"no {what} to embed: the list is empty")
    if number > MOST_ROWS:
        raise InputError(f"{number:,} {what} are more than {MOST_ROWS:,}: ask in parts")


def _content(image: str, place: int) -> bytes:
    """The bytes of a picture that is given as text: base64, a data: URI, or a path if paths are on."""
    if image.startswith(("http://", "https://", "ftp://", "s3://", "gs://", "file://")):
        raise InputError(f"picture {place}: addresses are not fetched; send bytes or base64")
    if len(image) > MOST_BYTES * 4 // 3 + 100:
        raise InputError(f"picture {place}: {len(image):,} letters of base64 are more than {MOST_BYTES:,} bytes")
    folder = _folder_of_pictures()
    if folder and not image.startswith("data:") and (path := _inside(folder, image)):
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    encoded = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)  # `base64` and MIME break lines
    except (binascii.Error, ValueError):
        paths = "nor a file of the folder that may be read" if folder else f"and paths are off here ({PATHS_VARIABLE})"
        raise InputError(f"picture {place}: {shown(image)} is no base64, {paths}") from None


def _folder_of_pictures() -> Path | None:
    """The folder whose pictures may be given by path; None if none is named."""
    named = os.environ.get(PATHS_VARIABLE)
    return Path(named).resolve() if named and Path(named).is_dir() else None


def _inside(folder: Path, image: str) -> Path | None:
    """The file in `folder` at a path, links followed; None if it is outside the folder or not a file."""
    try:
        path = (folder / image).resolve() if len(image) < 4096 else None
        return path if path and path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None
