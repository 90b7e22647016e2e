"""cluster: text vectors of the training samples -> `data/sidecars/clusters/`: a label per sample, and the centroids.

    flame cluster

Only if params have a section `cluster`. The folder is a sidecar (docs/sidecars.md) with two more files:
`centroids.safetensors` (`clustering/centroids.py`) and `clusters.html`, which shows clusters by their captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.clustering.centroids import CENTROIDS, STORE
from flame_core.clustering.pipeline import SCORES, Clustering
from flame_core.clustering.size_checks import size_checks
from flame_core.clustering.sources import NpyVectors, SidecarVectors, StoredTexts, VectorSource, require_dims
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.data.sidecars import VALUES, gather_sidecar
from flame_core.digest import bytes_sha256, file_sha256, value_digest
from flame_core.errors import InputError, ParamsError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.pages.charts import line_chart, standalone
from flame_core.pages.clusters import Labelled, cluster_page
from flame_core.params import ClusterParams, Params
from flame_core.reporting import facts, picture
from flame_core.text.jobs import chosen_slots
from flame_core.text.manifest import MANIFEST, require_training_fit, training_folder
from flame_core.text.store import CENTER, TrainStore
from flame_core.verification import DIGESTS, read_digests, verify
from flame_core.work import Unit, WorkCache

STAGE = "cluster"
PAGE = "clusters.html"


def run(params: Params, layout: Layout) -> None:
    """Cluster what the section `cluster` says, or continue."""
    chosen = params.cluster
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `cluster`: write `cluster: {{clusters: 64}}`")
    for source in (layout.shards, layout.captions, layout.train_embeddings):
        gates.require(source)
    index = read_index(layout.shards, "train")
    if len(index) < chosen.clusters:
        raise InputError(f"cluster.clusters is {chosen.clusters}, and the training split has {len(index)} samples")
    source, wanted, origin = _source(chosen, params, layout, index)
    wanted = {layout.shards: [INDEX], layout.captions: ["train/*"], **wanted}
    verified = verify(wanted)
    require_dims("cluster.dims", chosen.dims, source, min(len(index), chosen.fit_samples))
    clustering = Clustering(chosen, source, index, WorkCache(layout.work, STAGE), layout.clusters.name)
    found = clustering.run()
    labelled = _labelled(found.labels, layout.clusters.name, chosen.clusters)
    centroids = found.stored(labelled.counts).to_bytes()
    checks = cluster_checks(labelled.counts, chosen)
    values = chosen.model_dump(mode="json", include={"clusters", "dims", "seed", "iterations", "fit_samples"})
    origin |= {**values, "centroids": bytes_sha256(centroids)}
    kind = (chosen.kinds or params.text.train_kinds)[0]
    page = cluster_page(labelled, layout.captions, kind, params.evaluate.train_language)
    beside = {CENTROIDS: centroids, PAGE: page.encode()}
    gather_sidecar(layout.clusters, layout.state, found.labels, index, STAGE, origin, checks, beside)
    facts(
        STAGE,
        {
            "samples": len(index),
            "clusters": chosen.clusters,
            "vectors": f"{source.dims} dimensions from {source.name}, {chosen.dims} kept",
            "variance kept": f"{found.reduction.explained:.1%}",
            "mean cosine to the centroid": float(labelled.mean_score),
            "largest / mean / empty": f"{labelled.counts.max():,} / {len(index) / chosen.clusters:,.1f} / "
            f"{(labelled.counts == 0).sum():,}",
            "page": layout.clusters / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    sizes = np.sort(labelled.counts)[::-1]
    picture(
        "sizes",
        lambda: standalone(line_chart(range(len(sizes)), sizes.tolist(), "Samples per cluster", "cluster by size")),
        "svg+xml",
    )


def _source(
    chosen: ClusterParams, params: Params, layout: Layout, index: Index
) -> tuple[VectorSource, dict[Path, list[str]], dict[str, Any]]:
    """The vectors, what to verify before they are read, and what a sidecar's manifest says of them."""
    if (given := chosen.vectors) is None:
        store, folder = TrainStore(layout.embeddings), training_folder(layout.train_embeddings, chosen.reading)
        require_training_fit(store.manifest_of(chosen.reading), params, layout, chosen.reading)
        slots = chosen_slots(store.facets, chosen.kinds, chosen.reading)
        below = folder.relative_to(layout.train_embeddings)
        patterns = [(below / name).as_posix() for name in ("[0-9]*", MANIFEST, CENTER)]
        origin = {"vectors": STORE, "reading": chosen.reading, "embeddings": file_sha256(folder / MANIFEST)}
        digests = {Path(name): sha256 for name, sha256 in read_digests(layout.train_embeddings).items()}
        own = {path.name: sha256 for path, sha256 in digests.items() if path.parent == below}
        return StoredTexts(store, own, slots), {layout.train_embeddings: patterns}, origin
    places = [linked_place(layout, path) for path in given.paths]
    for place in places:
        if not place.exists():
            raise InputError(f"cluster.vectors: {place} does not exist")
    if given.sidecar is not None:
        (folder,) = places
        gates.require(folder)
        source = SidecarVectors(folder, "sidecar", index)
        wanted = {folder: ["*"]} if (folder / DIGESTS).is_file() else {}
        return source, wanted, {"vectors": source.name, "content": source.digest}
    npy, keys = places
    source = NpyVectors(npy, keys, "npy", index)
    content = value_digest({shard: source.identity(shard) for shard in sorted(index.shard_sizes())})
    return source, {}, {"vectors": source.name, "content": content}


def _labelled(units: Mapping[str, Unit], name: str, clusters: int) -> Labelled:
    labels = {shard: load_file(unit.file(f"{name}.safetensors"))[VALUES] for shard, unit in units.items()}
    scores = {shard: load_file(unit.file(f"{SCORES}.safetensors"))[VALUES] for shard, unit in units.items()}
    counts = sum((np.bincount(own, minlength=clusters) for own in labels.values()), np.zeros(clusters, np.int64))
    return Labelled(labels, scores, counts)


def cluster_checks(counts: np.ndarray, chosen: ClusterParams) -> list[gates.Check]:
    """Checks of the number of samples [K] per cluster."""
    limits, mean = chosen.gates, counts.sum() / len(counts)
    return [
        *size_checks("clusters", counts, limits),
        gates.Check(
            "clusters_large_enough",
            float(mean) >= limits.min_samples,
            "samples per cluster on average",
            value=float(mean),
            threshold=limits.min_samples,
            blocking=False,
        ),
    ]
