"""PCA and spherical k-means whose results do not depend on threads or processor.

Rounding errors differ between processors, and one that moves a sample from one cluster to another changes all further
iterations. So everything that is added up is a whole number: vectors come on a grid (`sources.GRID`), the basis of the
PCA is rounded to it, reduced vectors and centroids are multiples of 1 / UNIT. Matrix products of such numbers are exact
in whatever order they are added: below 2^24 in float32 for reduced vectors, below 2^53 in float64 for all else. Ties
go to the cluster with the lower number. What is left is the eigendecomposition of an exact matrix: its rounding error,
about 1e-13, changes a result only if it crosses a step of the grid.

scikit-learn computes the PCA and chooses the first centroids (k-means++). It has no spherical k-means: its own does not
normalise centroids, and adds up in an order that follows the threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flame_core.clustering.sources import GRID, lengths

UNIT = 2**11  # length of a reduced vector: a product of two is at most 2^22
_SCORES = 2**23  # similarities that are computed at once: 32 MB
SEEDED_BY = 10  # samples per cluster among which k-means++ chooses


@dataclass(frozen=True)
class Reduction:
    """PCA on the grid: a vector x becomes n((x - mean) basis).

    Attributes:
        mean: [D], whole numbers in float64, times `GRID`.
        basis: [D, E], the same; columns have length 1.
        explained: share of the variance that is kept; 1 if the vectors are all equal, which have none.
    """

    mean: np.ndarray
    basis: np.ndarray
    explained: float

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of length `UNIT` [n, E] in int16 for vectors [n, D] on the grid."""
        y = (vectors - self.mean) @ self.basis
        return on_sphere(y).astype(np.int16)


def fit_reduction(vectors: np.ndarray, dims: int) -> Reduction:
    """The PCA of vectors [n, D] on the grid, to E = `dims` dimensions."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), np.errstate(invalid="ignore"):
        pca = PCA(n_components=dims, svd_solver="covariance_eigh").fit(vectors)
    basis = np.rint(np.asarray(pca.components_).T * GRID)
    explained = np.nan_to_num(pca.explained_variance_ratio_.sum(), nan=1.0)
    return Reduction(np.rint(pca.mean_), basis, float(explained))


def on_sphere(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, E] with length `UNIT`, rounded to whole numbers; zero stays zero."""
    return np.rint(vectors / np.maximum(lengths(vectors), 1e-300) * UNIT)


def nearest(x: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centroid [n] that is most similar to each row of x [n, E], and the similarity [n] times `UNIT`^2."""
    columns = centroids.T.astype(np.float32)
    labels, best = np.empty(len(x), np.int64), np.empty(len(x), np.int32)
    size = max(1, _SCORES // len(centroids))
    for start in range(0, len(x), size):
        scores = x[start : start + size].astype(np.float32) @ columns
        own = slice(start, start + len(scores))
        labels[own] = scores.argmax(axis=1)
        best[own] = scores[np.arange(len(scores)), labels[own]]
    return labels, best


def first_centroids(x: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """K of the rows of x [n, E], far from one another (k-means++ on some of the rows)."""
    from sklearn.cluster import kmeans_plusplus

    draw = np.random.default_rng(seed)
    among = np.sort(draw.permutation(len(x))[: SEEDED_BY * clusters])
    centers, _ = kmeans_plusplus(x[among].astype(np.float64), clusters, random_state=seed)
    return centers.astype(np.int16)


def next_centroids(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The mean directions [K, E] of the rows of x [n, E] nearest to each centroid.

    An empty cluster takes one of the rows that are farthest from their centroid.
    """
    labels, best = nearest(x, centroids)
    clusters = len(centroids)
    sums = np.stack([np.bincount(labels, x[:, e], clusters) for e in range(x.shape[1])], axis=1)
    empty = np.flatnonzero(np.bincount(labels, minlength=clusters) == 0)
    sums[empty] = x[np.argsort(best, kind="stable")[: len(empty)]]
    moved = on_sphere(sums)
    return np.where(moved.any(axis=1, keepdims=True), moved, centroids).astype(np.int16)
