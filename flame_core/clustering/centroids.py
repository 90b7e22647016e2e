"""What `flame cluster` stores beside the labels: the clusters' centroids, and the map from text vectors to their space.

`centroids.safetensors` in the folder of the labels' sidecar holds

    centroids [K, E]  unit vectors in the reduced space
    counts    [K]     training samples per cluster; 0 of an empty one
    mean      [D]     of the vectors that were clustered
    basis     [D, E]  of the reduction: x becomes n((x - mean) basis), where n divides by the length
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flame_core.data.sidecars import VALUES, Sidecar
from flame_core.errors import InputError

CENTROIDS = "centroids.safetensors"
STORE = "store"  # `origin.vectors` of clusters of the stored text vectors


@dataclass(frozen=True)
class Centroids:
    """The arrays of `centroids.safetensors`: float32, and int64 for the counts."""

    centroids: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    basis: np.ndarray

    def to_bytes(self) -> bytes:
        """The file; equal values give equal bytes."""
        from safetensors.numpy import save

        return save({name: np.ascontiguousarray(value) for name, value in vars(self).items()})


def read_centroids(folder: Path) -> Centroids:
    """The centroids beside labels.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / CENTROIDS
    if not path.is_file():
        raise InputError(f"{path} is missing: these are no labels of `flame cluster`; name the folder that it made")
    try:
        return Centroids(**load_file(path))
    except (OSError, TypeError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}): run `flame cluster` again") from None


def require_labels(folder: Path, clusters: int) -> Sidecar:
    """The sidecar of the labels, all of which are from 0 to `clusters` - 1; reads them all, 8 bytes per sample.

    Raises:
        InputError: it holds no labels, or a label out of range; names the file and the row.
    """
    from safetensors.numpy import load_file

    sidecar = Sidecar(folder)
    kind = (sidecar.manifest.dtype, sidecar.manifest.shape)
    if kind != ("int64", ()):
        raise InputError(f"{folder} holds {kind[0]} {list(kind[1])} per sample, and a label is one int64")
    for name in sorted(sidecar.manifest.files):
        labels = load_file(folder / name)[VALUES]
        wrong = np.flatnonzero((labels < 0) | (labels >= clusters))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{folder / name}: row {row} has the label {labels[row]}, and there are {clusters} clusters; run "
                "`flame cluster` again"
            )
    return sidecar
