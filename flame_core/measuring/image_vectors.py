"""Picture embeddings of a split, and a check that a model and a store of texts share a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.data.shards import IndexRow, PictureReader
from flame_core.digest import bytes_sha256, file_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.graph.link_contents import same_centre
from flame_core.measuring.kept_vectors import kept_vectors
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.reporting import progress
from flame_core.text.sentence import SENTENCE
from flame_core.work import WorkCache

if TYPE_CHECKING:
    from flame_core.vision.image_encoder import ImageEncoder

_VECTORS = "vectors.npy"
_CHUNK = 512  # pictures whose bytes are held at once


def encode_pictures(encoder: ImageEncoder, shards: Path, rows: Sequence[IndexRow]) -> np.ndarray:
    """z_0 and the F facets of pictures, [N, 1 + F, D], in the order of the index rows."""
    found = []
    with progress("encode", len(rows), "pictures") as bar:
        for block in encoded_blocks(encoder, shards, rows):
            found.append(block)
            bar.advance(len(block))
    return np.concatenate(found)


def kept_pictures(encoder: ImageEncoder, model: Path, shards: Path, rows: Sequence[IndexRow], work: Path) -> np.ndarray:
    """The same, kept in the work cache by the model's files and the pictures' bytes, so a killed run continues."""
    reader = PictureReader(shards)
    digests = [bytes_sha256(reader.jpeg(row)) for row in rows]
    identity = model_identity(encoder, model)

    def inputs(part: slice) -> dict[str, Any]:
        return {"model": identity, "what": "views", "pictures": digests[part]}

    def blocks(part: slice) -> Iterator[np.ndarray]:
        return encoded_blocks(encoder, shards, rows[part])

    return np.array(kept_vectors(WorkCache(work, "encode"), _VECTORS, "encode", len(rows), inputs, blocks))


def model_identity(encoder: ImageEncoder, model: Path) -> dict[str, str]:
    """What the vectors of an encoder of the folder `model` depend on besides the pictures."""
    identity = {"weights": file_sha256(model / WEIGHTS), "config": file_sha256(model / CONFIG)}
    return identity if encoder.precision == "float32" else {**identity, "precision": encoder.precision}


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
    wrong += [] if same_centre(config, manifest) else ["center"]
    if wrong:
        raise InputError(
            f"{model} was trained against embeddings that differ in {', '.join(wrong)}; run `flame train {model.name}`"
        )


def require_stored_facets(config: Mapping[str, Any], manifest: Mapping[str, Any], model: Path, where: str) -> None:
    """Refuse a model whose pictures cannot be compared with the vectors that are stored for captions.

    Args:
        config: of the model.
        manifest: of the store.
        model: its folder.
        where: the param that names it.

    Raises:
        ParamsError: it was trained on texts that something of its own reads, or on another reading of them.
        InputError: as `require_same_space`.
    """
    recipe = config["recipe"]
    own = [name for name in ("text_tower", "text_projection", "lora") if recipe.get(name)]
    own += ["reading"] if recipe.get("reading", "facets") != "facets" else []
    own += ["model.head"] if recipe["model"].get("head") == "lexical" else []
    if own:
        raise ParamsError(
            f"{where}: the tower {model.name} was not trained on the facets that are stored for captions (its "
            f"{', '.join(own)}): take another recipe"
        )
    require_same_space(config, manifest, model)
