"""features: pictures and a frozen tower -> `data/sidecars/features/`: its vectors of every training picture.

    flame features

Only if params have a section `features`. The folder is a sidecar (docs/sidecars.md); `vision/stored_features.py` says
what it holds. Each shard is a unit of the work cache, so a killed run continues with the shards that are missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.data.shards import INDEX, Index, PictureReader, read_index
from flame_core.data.sidecars import VALUES, gather_sidecar, write_int8, write_values
from flame_core.errors import ParamsError
from flame_core.files.int8_rows import decoded
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.features import FeatureGates, FeaturesParams
from flame_core.reporting import facts, progress
from flame_core.settings import settings
from flame_core.verification import read_digests, verify
from flame_core.vision.initial_weights import InitialWeights, fetch_initial_weights, load_initial_weights
from flame_core.vision.stored_features import features_of, tower_of
from flame_core.vision.tower import ImageTower
from flame_core.work import Unit, UnitRecord, WorkCache

STAGE = "features"


def run(params: Params, layout: Layout) -> None:
    """Store the vectors that the section `features` asks for, or continue."""
    chosen = params.features
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `features`: write one with the `model` of a recipe")
    gates.require(layout.shards)
    verified = verify({layout.shards: [INDEX, "train/*"]})
    index = read_index(layout.shards, "train")
    weights = fetch_initial_weights(chosen.model, layout)
    units = _stored(chosen, weights, index, layout)
    checks = features_checks(units, chosen.gates)
    origin = {
        "tower": tower_of(chosen.model),
        "weights": weights.sha256,
        "views": chosen.views,
        "shards": index.digest(),
    }
    gather_sidecar(layout.features, layout.state, units, index, STAGE, origin, checks)
    width = load_file(next(iter(units.values())).file(_FILE))[VALUES].shape[-1]
    facts(
        STAGE,
        {
            "pictures": len(index),
            "views of each": ", ".join(chosen.views),
            "tower": f"{chosen.model.backbone}, {width} numbers, weights {weights.sha256[:12]}",
            "computed now": f"{sum(unit.computed for unit in units.values())} of {len(units)} shards",
            "verified": verified,
        },
    )
    gates.warn(checks)


_FILE = "features.safetensors"  # of a unit


def _stored(chosen: FeaturesParams, weights: InitialWeights, index: Index, layout: Layout) -> dict[str, Unit]:
    """{shard: its unit}; the tower is made when the first shard needs it."""
    cache, digests, device = WorkCache(layout.work, STAGE), read_digests(layout.shards), settings().torch_device()
    towers: list[ImageTower] = []

    def tower() -> ImageTower:
        if not towers:
            torch.set_num_threads(chosen.cpu_threads)
            made = ImageTower(chosen.model, hidden=1, facets=1)
            load_initial_weights(made.backbone, weights.folder)
            towers.append(made.requires_grad_(False).eval().to(device))
        return towers[0]

    inputs = chosen.model_dump(mode="json", include={"views", "dtype", "cpu_threads"})
    inputs |= {"tower": tower_of(chosen.model), "weights": weights.sha256}
    units: dict[str, Unit] = {}
    with progress(STAGE, len(index), "pictures") as bar:
        for shard, own in index.by_shard().items():

            def write(folder: Path, own: Index = own) -> UnitRecord:
                reader = PictureReader(layout.shards)
                jpegs = [reader.jpeg(row) for row in own]
                found = features_of(tower(), jpegs, chosen.model, chosen.views, device)
                if chosen.dtype == "int8":
                    write_int8(folder, layout.features.name, found)
                else:
                    write_values(folder, layout.features.name, found.astype(chosen.dtype))
                return UnitRecord({"pictures": len(own)})

            units[shard] = cache.get({"features": inputs, "shard": digests[shard], "rows": len(own)}, write)
            bar.advance(len(own))
    return units


def features_checks(units: dict[str, Unit], limits: FeatureGates) -> list[gates.Check]:
    """The check that pictures have different vectors."""
    total, count = 0.0, 0
    for unit in units.values():
        z = decoded(load_file(unit.file(_FILE)), VALUES)[:, 0].astype(np.float64)
        z[~z.any(axis=1)] = 1.0  # nothing at all, which is equal to itself
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        total += float((z * np.roll(z, 1, axis=0)).sum()) if len(z) > 1 else 0.0
        count += len(z) if len(z) > 1 else 0
    mean = total / max(count, 1)
    return [
        gates.Check(
            "features_differ",
            mean <= limits.max_cosine,
            "mean cosine between a picture's vector and the next one's",
            value=mean,
            threshold=limits.max_cosine,
        )
    ]
