"""Picture embeddings of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flame_core.data.shards import IndexRow, PictureReader
from flame_core.reporting import progress

if TYPE_CHECKING:
    from flame_core.vision.tower import ImageEncoder

_CHUNK = 512  # pictures whose bytes are held at once


def encode_pictures(encoder: ImageEncoder, shards: Path, rows: Sequence[IndexRow]) -> np.ndarray:
    """Z [N, D], one row of the index after the other."""
    reader = PictureReader(shards)
    found = []
    with progress("encode", len(rows), "pictures") as bar:
        for first in range(0, len(rows), _CHUNK):
            found.append(encoder.encode([reader.jpeg(row) for row in rows[first : first + _CHUNK]]))
            bar.advance(len(found[-1]))
    return np.concatenate(found)
