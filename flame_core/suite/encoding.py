"""A model's vectors of a benchmark's pictures and texts, on which tasks are measured.

Encoded pictures are kept in the work cache, by the model's identity and the pictures' bytes, so a killed run continues
where it stopped, and benchmarks or prompt modes with the same pictures share them. They are memory-mapped when read
again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from flame_core.measuring.facet_pairing import meets_whole, picture_vectors, text_vectors
from flame_core.reporting import progress
from flame_core.suite.content import Picture, pictures_sha256
from flame_core.suite.models.model import Model
from flame_core.suite.safe_pictures import decodable, opened
from flame_core.suite.score import Texts
from flame_core.text.store import unit
from flame_core.work import UnitRecord, WorkCache, clear_disk_errors

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
        """[N, C] unit vectors of pictures, for linear probes."""
        return unit(encoded(self.model, "features", pictures, self.work))

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

    def write(folder: Path) -> UnitRecord:
        shown = progress(f"{what} of {model.name}", len(pictures), "pictures")
        with shown as bar, (folder / _VECTORS).open("wb") as file:
            for start in range(0, len(pictures), _CHUNK):
                block = decoded(read, pictures[start : start + _CHUNK])
                if start == 0:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(pictures), *block.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(block.astype("<f4").tobytes())
                bar.advance(len(block))
        return UnitRecord({"pictures": len(pictures)})

    inputs = {"model": dict(model.identity), "what": what, "pictures": pictures_sha256(pictures)}
    return np.load(WorkCache(work, "encode").get(inputs, write).file(_VECTORS), mmap_mode="r")


def decoded(read: Callable[[Sequence[bytes]], np.ndarray], pictures: Sequence[Picture]) -> np.ndarray:
    """The result of `read` for pictures.

    Raises:
        InputError: one of them is not a picture; names it.
    """
    contents = [decodable(picture) for picture in pictures]
    try:
        return read(contents)
    except Exception:  # perhaps a decoder's, which may raise anything for broken bytes
        for picture, content in zip(pictures, contents, strict=True):
            opened(content, f"{picture.path}: {picture.name}")
        raise
