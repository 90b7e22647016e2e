"""Features of labelled pictures by any model, computed once: plain ones, and of K random views of each picture.

Both are kept in the work cache under the model's identity and the pictures' bytes, so a killed run continues and every
head of a model reads the same numbers.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from flame_core.digest import text_sha256
from flame_core.params import AugmentationParams, ViewsParams
from flame_core.reporting import progress
from flame_core.suite.content import Picture, pictures_sha256
from flame_core.suite.encoding import encoded
from flame_core.suite.models.model import Model
from flame_core.suite.safe_pictures import decodable, opened
from flame_core.work import UnitRecord, WorkCache

STAGE = "tune"
_VIEWS = "views.npy"
_CHUNK = 64  # pictures whose views are in memory at once
_SIDE = 512  # longest side of a view that a model is given


@dataclass(frozen=True)
class Features:
    """How a model's features are read.

    Attributes:
        model: any model under evaluation.
        kind: `pooled` as linear probes read them, or `z`, in the space of the texts.
        work: the work cache.
    """

    model: Model
    kind: Literal["pooled", "z"]
    work: Path

    def plain(self, pictures: Sequence[Picture]) -> np.ndarray:
        """[N, D] of pictures as a test sees them."""
        if self.kind == "z":
            return np.asarray(encoded(self.model, "views", pictures, self.work)[:, 0])
        return encoded(self.model, "features", pictures, self.work)

    def views(self, pictures: Sequence[Picture], chosen: ViewsParams) -> np.ndarray:
        """[N, K, D] of K random views of each picture."""

        def write(folder: Path) -> UnitRecord:
            shown = progress(f"views of {self.model.name}", len(pictures), "pictures")
            with shown as bar, (folder / _VIEWS).open("wb") as file:
                for start in range(0, len(pictures), _CHUNK):
                    part = pictures[start : start + _CHUNK]
                    block = self._read([view for picture in part for view in drawn_views(picture, chosen)])
                    if start == 0:
                        shape = (len(pictures), chosen.count, block.shape[1])
                        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                    file.write(block.astype("<f4").tobytes())
                    bar.advance(len(part))
            return UnitRecord({"pictures": len(pictures)})

        inputs = {
            "model": dict(self.model.identity),
            "features": self.kind,
            "views": chosen.model_dump(mode="json"),
            "pictures": pictures_sha256(pictures),
        }
        return np.load(WorkCache(self.work, STAGE).get(inputs, write).file(_VIEWS), mmap_mode="r")

    def _read(self, contents: Sequence[bytes]) -> np.ndarray:
        return self.model.pictures(contents) if self.kind == "z" else self.model.features(contents)


def drawn_views(picture: Picture, chosen: ViewsParams) -> list[bytes]:
    """K encoded square views of a picture; they depend only on its bytes' digest and the params.

    Raises:
        InputError: it cannot be decoded; names it.
    """
    from flame_core.vision.views import crop_box

    params = AugmentationParams(scale=chosen.scale, flip=chosen.flip)
    found = []
    whole = opened(decodable(picture), f"{picture.path}: {picture.name}").convert("RGB")
    side = min(_SIDE, max(whole.size))
    for number in range(chosen.count):
        draw = random.Random(text_sha256(f"view {number} {picture.sha256()}"))
        view = whole.resize((side, side), Image.Resampling.BICUBIC, box=crop_box(*whole.size, params, draw))
        if draw.random() < params.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        view.save(buffer, "PNG", compress_level=1)
        found.append(buffer.getvalue())
    return found
