"""The world of `world.py` with a label per sample and centroids, as `flame cluster` stores them; trainings on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame_core.clustering.centroids import CENTROIDS, Centroids
from flame_core.data.shards import read_index
from flame_core.data.sidecars import MANIFEST, Sidecar, SidecarManifest, gather_sidecar, write_values
from flame_core.digest import file_sha256, write_json
from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.text.store import TrainStore
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import Trained, train
from flame_core.work import UnitRecord, WorkCache
from tests.training.world import FACETS, HIDDEN, recipe, write_world

PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CLUSTERS, DIMS = 5, 3  # the world has four colours; the fifth cluster is empty


def clusters_of(seed: int = 0, hidden: int = HIDDEN) -> Centroids:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(hidden, DIMS)))[0].astype(np.float32)
    centroids = rng.normal(size=(CLUSTERS, DIMS))
    centroids = (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).astype(np.float32)
    counts = np.array([6, 6, 6, 6, 0])
    return Centroids(centroids, counts, np.zeros(hidden, np.float32), basis)


def write_labels(folder: Path, labels: np.ndarray, found: Centroids, vectors: str = "store") -> Path:
    """`<folder>/data/sidecars/clusters` with these labels of the 24 samples."""
    index = read_index(folder / "shards", "train")

    def write(unit: Path) -> UnitRecord:
        write_values(unit, "clusters", labels)
        return UnitRecord({"samples": len(labels)})

    units = {"train/00000.tar": WorkCache(folder / "work", "cluster").get({"labels": labels.tolist()}, write)}
    out, origin = folder / "data/sidecars/clusters", {"vectors": vectors, "reading": "facets"}
    gather_sidecar(out, folder / "state", units, index, "cluster", origin, beside={CENTROIDS: found.to_bytes()})
    return out


def write_sidecar(folder: Path, labels: np.ndarray, found: Centroids) -> None:
    """A sidecar of labels of one shard, without an index that it is aligned with."""
    folder.mkdir(parents=True, exist_ok=True)
    write_values(folder, "00000", labels)
    (folder / CENTROIDS).write_bytes(found.to_bytes())
    files = {"00000.safetensors": file_sha256(folder / "00000.safetensors")}
    manifest = SidecarManifest(
        name="clusters", stage="cluster", dtype="int64", shape=(), index="", origin={"vectors": "store"}, files=files
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def write_clustered(folder: Path) -> None:
    write_world(folder)
    write_labels(folder, np.arange(24) % 4, clusters_of())


def clustered_recipe(drop: float = 0.0, term: dict | None = None, **changes) -> TrainParams:
    """The recipe of these tests with the term; eps keeps gradients that are rounding errors from becoming steps."""
    model = {"backbone_options": PLAIN | {"drop_path_rate": drop}, "image_size": 16}
    optimizer = {"learning_rate": 3e-3, "eps": 1e-3, "weight_decay": 0.1}
    own = {"name": "prototypes", "weight": 0.5, "hidden": 12, "dim": 6, "decay": 0.5} | (term or {})
    return recipe(**{"model": model, "optimizer": optimizer, "epochs": 3, "terms": [own]} | changes)


def train_clustered(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    store, index = TrainStore(folder / "embeddings"), read_index(folder / "shards", "train")
    sidecars = {"clusters": Sidecar(folder / "data/sidecars/clusters")}
    samples = TrainingSamples(index, folder / "shards", store, range(len(FACETS)), params, sidecars)
    return train(samples, params, checkpoints, ranks, *recorders)
