"""The steps of a clustering as units of a work cache: a killed one continues with the unit that it was working on.

1. the PCA, fitted to a few samples;
2. per shard, the reduced vectors;
3. per iteration of k-means, the centroids, fitted to `cluster.fit_samples` samples;
4. per shard, the labels.

Only the samples that the centroids are fitted to are in memory at once, 2 E bytes each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from flame_core.clustering.centroids import Centroids
from flame_core.clustering.sources import GRID, VectorSource, blocks
from flame_core.clustering.spherical import (
    UNIT,
    Reduction,
    first_centroids,
    fit_reduction,
    nearest,
    next_centroids,
)
from flame_core.data.shards import Index
from flame_core.data.sidecars import write_values
from flame_core.params import KMeansParams
from flame_core.reporting import progress
from flame_core.work import Unit, UnitRecord, WorkCache

PCA_SAMPLES = 2**14  # which the PCA is fitted to, at most
_FILE = "values.safetensors"  # of a unit
SCORES = "scores"  # in a unit of labels: similarity of each sample to its centroid


@dataclass(frozen=True)
class Clustering:
    """A clustering of the samples of an index; `run` computes what is not in the cache.

    Attributes:
        params: of the clustering.
        source: of the vectors.
        index: all rows of the training split.
        cache: of the stage.
        name: of the labels' sidecar.
    """

    params: KMeansParams
    source: VectorSource
    index: Index
    cache: WorkCache
    name: str

    def run(self) -> Clustered:
        """All steps, in order."""
        reduced = self._reduced()
        fitted = _FitRows(reduced, self._sizes, self.params)
        centroids, inputs = None, {"reduced": {shard: unit.sha256[_FILE] for shard, unit in reduced.items()}}
        inputs |= {"clusters": self.params.clusters, "seed": self.params.seed, "fit": self.params.fit_samples}
        with progress("k-means", self.params.iterations, "iterations") as bar:
            for iteration in range(self.params.iterations + 1):  # the first chooses
                before, unit = (
                    centroids,
                    self.cache.get(
                        {**inputs, "iteration": iteration}, lambda folder, c=centroids: self._iterate(folder, c, fitted)
                    ),
                )
                centroids = load_file(unit.file(_FILE))["centroids"]
                if before is not None and np.array_equal(before, centroids):
                    break
                bar.advance()
        assert centroids is not None
        return Clustered(self._reduction, centroids, self._labels(reduced, centroids))

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return dict(sorted(self.index.shard_sizes().items()))

    @cached_property
    def _identities(self) -> dict[str, dict[str, object]]:
        with progress("vectors", len(self._sizes), "shards") as bar:
            found = {}
            for shard in self._sizes:
                found[shard] = self.source.identity(shard)
                bar.advance()
        return found

    @cached_property
    def _reduction_unit(self) -> Unit:
        chosen = chosen_rows(self._sizes, PCA_SAMPLES, self.params.seed)

        def write(folder: Path) -> UnitRecord:
            parts = [block for shard, rows in chosen.items() for block in blocks(self.source, shard, rows.tolist())]
            found = fit_reduction(np.concatenate(parts), self.params.dims)
            arrays = {"mean": found.mean, "basis": found.basis, "explained": np.array([found.explained])}
            (folder / _FILE).write_bytes(save({name: np.ascontiguousarray(each) for name, each in arrays.items()}))
            return UnitRecord({"samples": sum(map(len, chosen.values()))})

        inputs = {"pca": self._identities, "samples": PCA_SAMPLES, "dims": self.params.dims, "seed": self.params.seed}
        return self.cache.get(inputs, write)

    @cached_property
    def _reduction(self) -> Reduction:
        arrays = load_file(self._reduction_unit.file(_FILE))
        return Reduction(arrays["mean"], arrays["basis"], float(arrays["explained"][0]))

    def _reduced(self) -> dict[str, Unit]:
        units = {}
        with progress("reduce", len(self._sizes), "shards") as bar:
            for shard, rows in self._sizes.items():

                def write(folder: Path, shard: str = shard, rows: int = rows) -> UnitRecord:
                    parts = [self._reduction.apply(block) for block in blocks(self.source, shard, range(rows))]
                    (folder / _FILE).write_bytes(save({"vectors": np.concatenate(parts)}))
                    return UnitRecord({"samples": rows})

                basis = self._reduction_unit.sha256[_FILE]
                units[shard] = self.cache.get({"reduce": self._identities[shard], "basis": basis, "rows": rows}, write)
                bar.advance()
        return units

    def _iterate(self, folder: Path, before: np.ndarray | None, fitted: _FitRows) -> UnitRecord:
        if before is None:
            found = first_centroids(fitted.vectors, self.params.clusters, self.params.seed)
        else:
            found = next_centroids(fitted.vectors, before)
        (folder / _FILE).write_bytes(save({"centroids": found}))
        return UnitRecord({"samples": len(fitted.vectors)})

    def _labels(self, reduced: Mapping[str, Unit], centroids: np.ndarray) -> dict[str, Unit]:
        units, of_centroids = {}, save({"centroids": centroids})
        with progress("label", len(self._sizes), "shards") as bar:
            for shard, unit in reduced.items():

                def write(folder: Path, unit: Unit = unit) -> UnitRecord:
                    labels, scores = nearest(load_file(unit.file(_FILE))["vectors"], centroids)
                    write_values(folder, self.name, labels)
                    write_values(folder, SCORES, (scores / UNIT**2).astype(np.float32))
                    return UnitRecord({"samples": len(labels)})

                inputs = {"label": unit.sha256[_FILE], "centroids": _digest(of_centroids), "name": self.name}
                units[shard] = self.cache.get(inputs, write)
                bar.advance()
        return units


@dataclass(frozen=True)
class Clustered:
    """What `Clustering.run` found: the map, the centroids [K, E] times `UNIT`, and units of labels by shard."""

    reduction: Reduction
    centroids: np.ndarray
    labels: dict[str, Unit]

    def stored(self, counts: np.ndarray) -> Centroids:
        """The content of `centroids.safetensors`."""
        from flame_core.clustering.sources import lengths

        directions = self.centroids.astype(np.float64)
        return Centroids(
            centroids=(directions / np.maximum(lengths(directions), 1.0)).astype(np.float32),
            counts=counts,
            mean=(self.reduction.mean / GRID).astype(np.float32),
            basis=(self.reduction.basis / GRID).astype(np.float32),
        )


@dataclass(frozen=True)
class _FitRows:
    """The reduced vectors that the centroids are fitted to, read when they are needed."""

    reduced: Mapping[str, Unit]
    sizes: Mapping[str, int]
    params: KMeansParams

    @cached_property
    def vectors(self) -> np.ndarray:
        """[n, E] in int16."""
        chosen = chosen_rows(self.sizes, self.params.fit_samples, self.params.seed)
        parts = [load_file(self.reduced[shard].file(_FILE))["vectors"][rows] for shard, rows in chosen.items()]
        return np.concatenate(parts)


def chosen_rows(sizes: Mapping[str, int], most: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of each shard, in order: all of them, or `most` that are drawn from the seed."""
    total = sum(sizes.values())
    chosen = np.arange(total) if total <= most else np.sort(np.random.default_rng(seed).permutation(total)[:most])
    ends = np.cumsum([0, *sizes.values()])
    parts = np.split(chosen, np.searchsorted(chosen, ends[1:-1]))
    return {shard: part - start for shard, part, start in zip(sizes, parts, ends, strict=False)}


def _digest(content: bytes) -> str:
    from flame_core.digest import bytes_sha256

    return bytes_sha256(content)
