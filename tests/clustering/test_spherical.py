"""PCA and spherical k-means: equal to their formulas, and to the byte whatever the order of additions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from flame_core.clustering import spherical
from flame_core.clustering.sources import GRID
from flame_core.clustering.spherical import (
    UNIT,
    first_centroids,
    fit_reduction,
    nearest,
    next_centroids,
    on_sphere,
)


def directions(clusters: int = 6, each: int = 50, dims: int = 16, noise: float = 0.1, seed: int = 0):
    """Unit vectors [n, D] near a few directions, and which of them."""
    draw = np.random.default_rng(seed)
    truth = np.repeat(np.arange(clusters), each)
    x = draw.normal(size=(clusters, dims))[truth] / np.sqrt(dims) + noise * draw.normal(size=(len(truth), dims))
    return x / np.linalg.norm(x, axis=1, keepdims=True), truth


def clustered(x: np.ndarray, clusters: int, seed: int = 0, iterations: int = 50) -> np.ndarray:
    centroids = first_centroids(x, clusters, seed)
    for _ in range(iterations):
        before, centroids = centroids, next_centroids(x, centroids)
        if np.array_equal(before, centroids):
            return centroids
    raise AssertionError("no fixed point")


def test_it_finds_directions_that_are_apart():
    x, truth = directions()
    labels, _ = nearest(grid := on_sphere(x).astype(np.int16), clustered(grid, 6))
    pairs = set(zip(labels.tolist(), truth.tolist(), strict=True))
    assert len(pairs) == 6


def test_similarities_are_the_exact_products():
    x, _ = directions()
    grid = on_sphere(x).astype(np.int16)
    labels, scores = nearest(grid, grid[:7])
    exact = grid.astype(np.int64) @ grid[:7].T.astype(np.int64)
    assert np.array_equal(labels, exact.argmax(axis=1)) and np.array_equal(scores, exact.max(axis=1))


def test_a_centroid_is_the_mean_direction_of_its_rows():
    x, _ = directions(noise=0.5)
    grid = on_sphere(x).astype(np.int16)
    centroids = next_centroids(grid, grid[:5])
    labels, _ = nearest(grid, grid[:5])
    for k in range(5):
        mean = grid[labels == k].mean(axis=0)
        np.testing.assert_allclose(centroids[k] / UNIT, mean / np.linalg.norm(mean), atol=1 / UNIT)


def test_means_by_label_are_the_centroids_once_they_rest():
    """The table that ProtoCLIP's term would sum up of the captions themselves."""
    x, _ = directions(noise=0.5)
    grid = on_sphere(x).astype(np.int16)
    centroids = clustered(grid, 6)
    labels = torch.from_numpy(nearest(grid, centroids)[0])
    sums = torch.zeros(6, grid.shape[1]).index_put_(
        (labels,), torch.from_numpy(grid.astype(np.float32)), accumulate=True
    )
    table = torch.nn.functional.normalize(sums / torch.bincount(labels)[:, None], dim=1)
    np.testing.assert_allclose(table.numpy(), centroids / UNIT, atol=1 / UNIT)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at_once", [40, 2**23])
def test_threads_and_parts_change_no_byte(monkeypatch, threads, at_once):
    vectors, _ = directions(clusters=9, dims=40, noise=0.4, each=30)
    grid = np.rint(vectors * GRID)
    reduction = fit_reduction(grid, 8)
    whole = reduction.apply(grid)
    expected = clustered(whole, 9)
    monkeypatch.setattr(spherical, "_SCORES", at_once)
    with threadpool_limits(threads):
        again = fit_reduction(grid, 8)
        assert np.array_equal(again.basis, reduction.basis) and np.array_equal(again.mean, reduction.mean)
        parts = np.concatenate([reduction.apply(grid[i : i + 7]) for i in range(0, len(grid), 7)])
        assert np.array_equal(parts, whole)
        assert np.array_equal(clustered(parts, 9), expected)


def test_the_order_of_additions_changes_no_byte():
    """As another processor would add: coordinates in another order give the same similarities and the same sums."""
    x, _ = directions(noise=0.6)
    grid = on_sphere(x).astype(np.int16)
    order = np.random.default_rng(1).permutation(grid.shape[1])
    centroids = next_centroids(grid, grid[:9])
    assert np.array_equal(next_centroids(grid[:, order], grid[:9][:, order]), centroids[:, order])
    rows = np.random.default_rng(2).permutation(len(grid))
    assert np.array_equal(next_centroids(grid[rows], grid[:9]), centroids)


def test_the_reduction_is_the_pca_but_for_rounding():
    vectors, _ = directions(clusters=9, dims=40, noise=0.4)
    reduction = fit_reduction(np.rint(vectors * GRID), 5)
    expected = PCA(5).fit(vectors)
    y = expected.transform(vectors)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(reduction.apply(np.rint(vectors * GRID)) / UNIT, y, atol=2e-3)
    assert reduction.explained == pytest.approx(expected.explained_variance_ratio_.sum(), rel=1e-4)


def test_equal_vectors_lose_nothing():
    x = np.tile([3000.0, -500.0, 100.0, 16000.0], (40, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_reduction(x, 2)
    assert found.explained == 1.0
    assert not found.apply(x).any()


def test_an_empty_cluster_takes_the_row_that_is_farthest_from_its_centroid():
    rows = np.array([[1, 0], [1, 0.1], [1, -0.1], [0, 1]])
    grid = on_sphere(rows).astype(np.int16)
    twice = np.stack([grid[0], grid[0]])  # the second of two equal centroids stays empty
    assert next_centroids(grid, twice)[1].tolist() == [0, UNIT]


def test_equal_rows_leave_clusters_empty():
    grid = np.full((20, 2), [0, UNIT], np.int16)
    centroids = clustered(grid, 3)
    assert set(nearest(grid, centroids)[0].tolist()) == {0}


def test_a_seed_is_a_choice():
    x, _ = directions(noise=0.6)
    grid = on_sphere(x).astype(np.int16)
    assert np.array_equal(first_centroids(grid, 9, 0), first_centroids(grid, 9, 0))
    assert not np.array_equal(first_centroids(grid, 9, 0), first_centroids(grid, 9, 1))
