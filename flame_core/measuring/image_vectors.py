"""Picture embeddings of a split, and a check that a model and a store of texts share a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.data.shards import IndexRow, PictureReader
from flame_core.errors import InputError
from flame_core.reporting import progress
from flame_core.text.sentence import SENTENCE

if TYPE_CHECKING:
    from flame_core.vision.tower import ImageEncoder

_CHUNK = 512  # pictures whose bytes are held at once


def encode_pictures(encoder: ImageEncoder, shards: Path, rows: Sequence[IndexRow]) -> np.ndarray:
    """z_0 and the F facets of pictures, [N, 1 + F, D], in the order of the index rows."""
    found = []
    with progress("encode", len(rows), "pictures") as bar:
        for block in encoded_blocks(encoder, shards, rows):
            found.append(block)
            bar.advance(len(block))
    return np.concatenate(found)


def encoded_blocks(encoder: ImageEncoder, shards: Path, rows: Sequence[IndexRow]) -> Iterator[np.ndarray]:
    """The same in blocks, [n, 1 + F, D] each."""
    reader = PictureReader(shards)
    for first in range(0, len(rows), _CHUNK):
        yield encoder.encode_facets([reader.jpeg(row) for row in rows[first : first + _CHUNK]])


def require_same_space(config: Mapping[str, Any], manifest: Mapping[str, Any], model: Path) -> None:
    """Refuse a model that was trained into another space than that of the store, or of its sentences.

    Raises:
        InputError: names what differs.
    """
    names = ("llm", "hidden", SENTENCE) if config.get(SENTENCE) is not None else ("llm", "layer", "hidden")
    wrong = [name for name in names if config.get(name) != manifest.get(name)]
    if wrong:
        raise InputError(
            f"{model} was trained against embeddings that differ in {', '.join(wrong)}; run `flame train {model.name}`"
        )
