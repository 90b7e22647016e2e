"""Groups of pictures: clusters of their histograms, made anew or as they were frozen.

`centroids.safetensors` in `data/selections/` holds whole numbers, so that a picture's group is the same when it is
found again from the file:

    centroids  [C, E]  int16, times `UNIT`
    mean       [K]     int32, times `GRID`
    basis      [K, E]  int32, times `GRID`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from flame_core.clustering.pipeline import SCORES, Clustering
from flame_core.clustering.sources import blocks
from flame_core.clustering.spherical import UNIT, Reduction, nearest
from flame_core.data.shards import Index
from flame_core.data.sidecars import VALUES, write_values
from flame_core.digest import bytes_sha256
from flame_core.errors import InputError
from flame_core.params import SelectParams
from flame_core.reporting import progress
from flame_core.selections.histograms import Histograms
from flame_core.work import Unit, UnitRecord, WorkCache

CENTROIDS = "centroids.safetensors"
GROUPS = "groups"  # the name of labels within a unit


@dataclass(frozen=True)
class Centres:
    """The arrays of `centroids.safetensors`."""

    centroids: np.ndarray
    mean: np.ndarray
    basis: np.ndarray

    def to_bytes(self) -> bytes:
        """The file; equal arrays give equal bytes."""
        return save({name: np.ascontiguousarray(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Grouped:
    """Centres, and by shard the group and the cosine with its centroid of each picture, [rows]."""

    centres: Centres
    groups: Mapping[str, np.ndarray]
    cosines: Mapping[str, np.ndarray]

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Groups and cosines of all pictures, in the order of shards and rows."""
        shards = sorted(self.groups)
        return np.concatenate([self.groups[each] for each in shards]), np.concatenate(
            [self.cosines[each] for each in shards]
        )


def make_groups(chosen: SelectParams, source: Histograms, index: Index, cache: WorkCache) -> Grouped:
    """Cluster the histograms."""
    source.sort()
    found = Clustering(chosen, source, index, cache, GROUPS).run()
    back = np.empty_like(source.order)
    back[source.order] = np.arange(len(back))  # the file is in the codes' own order
    mean, basis = found.reduction.mean[back], found.reduction.basis[back]
    centres = Centres(found.centroids.astype(np.int16), mean.astype(np.int32), basis.astype(np.int32))
    return _read(centres, found.labels)


def find_groups(centres: Centres, source: Histograms, index: Index, cache: WorkCache) -> Grouped:
    """Give every picture the nearest of frozen centroids; shards that did not change are found in the cache."""
    digest = bytes_sha256(centres.to_bytes())
    reduction = Reduction(centres.mean.astype(np.float64), centres.basis.astype(np.float64), 0.0)
    units, sizes = {}, dict(sorted(index.shard_sizes().items()))
    with progress("group", len(sizes), "shards") as bar:
        for shard, rows in sizes.items():

            def write(folder: Path, shard: str = shard, rows: int = rows) -> UnitRecord:
                found = [
                    nearest(reduction.apply(part), centres.centroids) for part in blocks(source, shard, range(rows))
                ]
                write_values(folder, GROUPS, np.concatenate([labels for labels, _ in found]))
                scores = np.concatenate([best for _, best in found]) / UNIT**2
                write_values(folder, SCORES, scores.astype(np.float32))
                return UnitRecord({"samples": rows})

            units[shard] = cache.get({"frozen": digest, "codes": source.identity(shard), "rows": rows}, write)
            bar.advance()
    return _read(centres, units)


def _read(centres: Centres, units: Mapping[str, Unit]) -> Grouped:
    groups = {shard: load_file(unit.file(f"{GROUPS}.safetensors"))[VALUES] for shard, unit in units.items()}
    cosines = {shard: load_file(unit.file(f"{SCORES}.safetensors"))[VALUES] for shard, unit in units.items()}
    return Grouped(centres, groups, cosines)


def read_centres(folder: Path) -> Centres:
    """The centroids in a folder that `flame select` made.

    Raises:
        InputError: there are none, or they are damaged.
    """
    from safetensors import SafetensorError

    path = folder / CENTROIDS
    if not path.is_file():
        raise InputError(f"{path} is missing: {folder} holds no clusters; name a folder that `flame select` made")
    try:
        return Centres(**load_file(path))
    except (OSError, TypeError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}); name an undamaged folder") from None
