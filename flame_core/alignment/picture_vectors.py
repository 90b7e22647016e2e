"""Pictures of the pairs as the towers have them: stored vectors, or those of a trained model from the work cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flame_core import gates
from flame_core.alignment.pairs import Pair
from flame_core.data.shards import Index, PictureReader
from flame_core.data.sidecars import Sidecar
from flame_core.digest import bytes_sha256
from flame_core.errors import InputError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.measuring.image_vectors import model_identity
from flame_core.measuring.kept_vectors import kept_vectors
from flame_core.model_files import WEIGHTS
from flame_core.params import Params
from flame_core.params.alignment import ProbedTower
from flame_core.settings import settings
from flame_core.verification import verify
from flame_core.vision.image_encoder import load_encoder
from flame_core.vision.initial_weights import fetch_initial_weights
from flame_core.vision.stored_features import require_stored_tower
from flame_core.work import WorkCache

_CHUNK = 256  # pictures whose bytes are in memory at once


def picture_vectors(
    tower: ProbedTower, pairs: Sequence[Pair], index: Index, params: Params, layout: Layout
) -> tuple[np.ndarray, dict[str, Any]]:
    """Vectors [N, C] of the pairs' pictures as evaluation sees them, and what the tower is, for the record.

    Raises:
        InputError: vectors or model are missing, damaged, of other shards, or of another tower than `features` says.
        GateError: a blocking check of them failed.
    """
    if tower.features is not None:
        return _stored(linked_place(layout, tower.features), pairs, index, params, layout)
    return _encoded(linked_place(layout, tower.model or ""), pairs, layout)


def _stored(
    folder: Path, pairs: Sequence[Pair], index: Index, params: Params, layout: Layout
) -> tuple[np.ndarray, dict[str, Any]]:
    sidecar = Sidecar(folder)
    gates.require(folder)
    verify({folder: ["*"]})
    sidecar.require_aligned(index)
    if sidecar.manifest.dtype not in ("float16", "float32", "int8") or len(sidecar.manifest.shape) != 2:
        shape = ", ".join(map(str, sidecar.manifest.shape))
        raise InputError(
            f"{folder} holds {sidecar.manifest.dtype} [{shape}] per sample, and not the vectors of a tower"
        )
    if params.features is not None and folder == layout.features:
        weights = fetch_initial_weights(params.features.model, layout).sha256
        require_stored_tower(sidecar, params.features.model, weights, "params.yaml", "run `flame features` again")
    values = sidecar.read([(pair.row.shard, pair.row.row) for pair in pairs])[:, 0].float().numpy()
    origin = sidecar.manifest.origin
    return values, {"features": sidecar.digest, "tower": origin.get("tower"), "weights": origin.get("weights")}


def _encoded(folder: Path, pairs: Sequence[Pair], layout: Layout) -> tuple[np.ndarray, dict[str, Any]]:
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder / WEIGHTS} is missing: name the folder of a trained model, such as data/models/flame"
        )
    gates.require(folder)
    verify({folder: ["*"]})
    encoder = load_encoder(folder, settings().torch_device())
    identity, reader = model_identity(encoder, folder), PictureReader(layout.shards)
    digests = [bytes_sha256(reader.jpeg(pair.row)) for pair in pairs]

    def inputs(part: slice) -> dict[str, Any]:
        return {"model": identity, "what": "features", "pictures": digests[part]}

    def blocks(part: slice) -> Iterator[np.ndarray]:
        own = pairs[part]
        for start in range(0, len(own), _CHUNK):
            jpegs = [reader.jpeg(pair.row) for pair in own[start : start + _CHUNK]]
            yield encoder.encode_with(lambda seen, batch: seen.patches(batch).mean(dim=1), jpegs)

    cache = WorkCache(layout.work, "encode")
    values = kept_vectors(cache, "vectors.npy", f"encode by {folder.name}", len(pairs), inputs, blocks)
    return np.array(values), {"model": identity}
