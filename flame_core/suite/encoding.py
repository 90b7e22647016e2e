"""A model's vectors of a benchmark's pictures and texts, on which tasks are measured.

Encoded pictures are kept in the work cache, by the model's identity and the pictures' bytes, so a killed run continues
where it stopped, also within a split, and benchmarks or prompt modes with the same pictures share them. They are
memory-mapped when read again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.errors import ComputationError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.measuring.facet_pairing import meets_whole, picture_vectors, text_vectors
from flame_core.measuring.kept_vectors import kept_vectors
from flame_core.processes.threads import mapped, prefetched
from flame_core.settings import settings
from flame_core.suite.content import Picture, pictures_sha256
from flame_core.suite.models.model import Model
from flame_core.suite.safe_pictures import decodable, opened
from flame_core.suite.score import Texts
from flame_core.text.store import unit
from flame_core.work import WorkCache

_CHUNK = 256  # pictures whose bytes are in memory at once
_TEXTS = 256  # texts whose facets are in memory at once
_VECTORS = "vectors.npy"


@dataclass(frozen=True)
class Vectors:
    """A model's vectors for one benchmark.

    Attributes:
        model: the measured model.
        kind: `Benchmark.text_kind`, how a text is presented to the LLM.
        work: the work cache.
    """

    model: Model
    kind: str
    work: Path

    def paired(self, pictures: Sequence[Picture]) -> tuple[np.ndarray, Texts]:
        """(vectors [N, V] of pictures, a function of texts to vectors [T, V]): inner products are similarities."""
        views = encoded(self.model, "views", pictures, self.work)  # [N, 1 + F, D]
        facets = views.shape[1] - 1
        if facets and not meets_whole(self.kind):
            return picture_vectors(views), partial(self._facet_texts, facets)
        return views[:, 0], self.texts

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[T, D] of texts, one vector per text."""
        return self.model.texts(self.kind, texts)

    def features(self, pictures: Sequence[Picture]) -> np.ndarray:
        """[N, C] unit vectors of pictures, for linear probes.

        Raises:
            ComputationError: a number is not finite; names the picture.
        """
        found = unit(encoded(self.model, "features", pictures, self.work))
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            name = pictures[int((~finite).argmax())].name
            raise ComputationError(
                f"{self.model.name}: features of {name} are not finite: the model's weights are broken"
            )
        return found

    def patches(self, picture: Picture) -> np.ndarray:
        """[g, g, D] unit vectors of a picture's patches, in the space of `texts`: a patch has no facets."""
        return decoded(self.model.patches, [picture])[0]

    def _facet_texts(self, facets: int, texts: Sequence[str]) -> np.ndarray:
        """`text_vectors` of texts, mapped from a nameless file, since COCO's take 4 GB at 5,120 dimensions."""
        with clear_disk_errors(self.work), tempfile.TemporaryFile(dir=self.work) as file:
            for start in range(0, len(texts), _TEXTS):
                block = self.model.facets(self.kind, texts[start : start + _TEXTS])
                file.write(text_vectors(block, facets).tobytes())
            file.flush()
            return np.memmap(file, np.float32, "r").reshape(len(texts), -1)


def encoded(model: Model, what: str, pictures: Sequence[Picture], work: Path) -> np.ndarray:
    """The vectors of `model.views` or `model.features`, named by `what`, mapped from the work cache."""
    read: Callable[[Sequence[bytes]], np.ndarray] = getattr(model, what)
    digests = pictures_sha256(pictures)

    def inputs(part: slice) -> dict[str, Any]:
        return {"model": dict(model.identity), "what": what, "pictures": digests[part]}

    def blocks(part: slice) -> Iterator[np.ndarray]:
        chunks = [pictures[start : min(start + _CHUNK, part.stop)] for start in range(part.start, part.stop, _CHUNK)]
        return (_read(read, chunk, contents) for chunk, contents in _with_contents(chunks))

    title = f"{what} of {model.name}"
    return kept_vectors(WorkCache(work, "encode"), _VECTORS, title, len(pictures), inputs, blocks)


def decoded(read: Callable[[Sequence[bytes]], np.ndarray], pictures: Sequence[Picture]) -> np.ndarray:
    """The result of `read` for pictures.

    Raises:
        InputError: one of them is not a picture; names it.
    """
    return _read(read, pictures, [decodable(picture) for picture in pictures])


def _with_contents(chunks: Sequence[Sequence[Picture]]) -> Iterator[tuple[Sequence[Picture], list[bytes]]]:
    """Each chunk with the bytes of its pictures; threads, if there are any, read the next chunk meanwhile."""
    threads = settings().decoding_processes(1)

    def contents(chunk: Sequence[Picture]) -> tuple[Sequence[Picture], list[bytes]]:
        return chunk, mapped(decodable, chunk, threads)

    return prefetched(chunks, contents) if threads else map(contents, chunks)


def _read(
    read: Callable[[Sequence[bytes]], np.ndarray], pictures: Sequence[Picture], contents: Sequence[bytes]
) -> np.ndarray:
    try:
        return read(contents)
    except Exception:  # perhaps a decoder's, which may raise anything for broken bytes
        for picture, content in zip(pictures, contents, strict=True):
            opened(content, f"{picture.path}: {picture.name}")
        raise
