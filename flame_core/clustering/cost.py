"""What `flame cluster` costs, counted from its params; and a stand-in for labels that are not there yet."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flame_core.clustering.centroids import CENTROIDS, STORE, Centroids
from flame_core.clustering.pipeline import PCA_SAMPLES
from flame_core.clustering.spherical import SEEDED_BY
from flame_core.data.stand_in_sidecar import StandInSidecar
from flame_core.params import KMeansParams


@dataclass(frozen=True)
class ClusterCost:
    """The cost of a clustering.

    Attributes:
        flops: of the PCA, the reduction, the iterations and the labels.
        read_bytes: of the vectors, each of which is read once to be verified and once to be reduced.
        memory: bytes at the peak, of the PCA or of the iterations.
        stored_bytes: labels and centroids; what the work cache holds beside them is `cache_bytes`.
    """

    flops: dict[str, float]
    read_bytes: int
    memory: int
    stored_bytes: int
    cache_bytes: int


def cluster_cost(params: KMeansParams, samples: int, hidden: int, vectors: int, number_bytes: float) -> ClusterCost:
    """The cost of clustering `samples`, each with `vectors` of `hidden` numbers of `number_bytes` bytes."""
    k, e, fitted = params.clusters, params.dims, min(samples, params.fit_samples)
    of_pca, seeded_by = min(samples, PCA_SAMPLES), min(fitted, SEEDED_BY * k)
    flops = {
        "PCA": 2.0 * of_pca * hidden**2 + 9.0 * hidden**3,
        "reduction": 2.0 * samples * hidden * e,
        "first centroids": 2.0 * k * (2 + math.log(k)) * seeded_by * e,
        "iterations": 2.0 * params.iterations * fitted * k * e,
        "labels": 2.0 * samples * k * e,
    }
    pca = 8 * (2 * of_pca * hidden + 3 * hidden**2)
    iterations = fitted * (2 * e + 8 + 12) + 8 * seeded_by * (e + 1) + 4 * k * e * 8
    return ClusterCost(
        flops=flops,
        read_bytes=round(2 * samples * vectors * hidden * number_bytes),
        memory=max(pca, iterations),
        stored_bytes=8 * samples + k * (4 * e + 8) + 4 * hidden * (e + 1),
        cache_bytes=samples * (2 * e + 4) + params.iterations * 2 * k * e,
    )


def clusters_stand_in(params: KMeansParams, hidden: int, pictures: int) -> StandInSidecar:
    """As many labels, with centroids of the right sizes."""
    ones = np.zeros((params.clusters, params.dims), np.float32)
    ones[:, 0] = 1
    counts = np.ones(params.clusters, np.int64)
    mean, basis = np.zeros(hidden, np.float32), np.zeros((hidden, params.dims), np.float32)
    beside = {CENTROIDS: Centroids(ones, counts, mean, basis).to_bytes()}
    return StandInSidecar("cluster", np.zeros(pictures, np.int64), {"vectors": STORE}, beside)
