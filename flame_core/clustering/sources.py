"""The vectors that are clustered: one per training sample, in blocks of bounded memory, on an exact grid.

Coordinates are rounded to multiples of 1 / GRID and returned as whole numbers in float64. Sums and products of these
are exact, so they depend neither on the order of additions nor on the processor (`spherical.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flame_core.clustering.centroids import STORE
from flame_core.data.shards import Index
from flame_core.data.sidecars import Sidecar
from flame_core.digest import bytes_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.text.store import CENTER, Drawn, TrainStore

GRID = 2**14  # steps per unit of a coordinate; the largest sum below is 2^28 times the samples of the PCA, 2^42
BLOCK = 2**22  # numbers that are read at once: 32 MB in float64


class VectorSource(Protocol):
    """Vectors of training samples by shard and row.

    Attributes:
        name: `STORE`, or the path of other vectors.
        dims: D.
    """

    name: str
    dims: int

    def identity(self, shard: str) -> dict[str, object]:
        """What the vectors of a shard follow from."""
        ...

    def read(self, shard: str, rows: Sequence[int]) -> np.ndarray:
        """Whole numbers [n, D] in float64: n rows of a shard, times `GRID`."""
        ...


def blocks(source: VectorSource, shard: str, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """The vectors of rows of a shard, in order, some at a time."""
    size = max(1, BLOCK // source.dims)
    for start in range(0, len(rows), size):
        yield source.read(shard, rows[start : start + size])


class StoredTexts:
    """The mean of a sample's stored text vectors."""

    name = STORE

    def __init__(self, store: TrainStore, sha256: Mapping[str, str], slots: Sequence[int]) -> None:
        """Take the store, the digests of its files by name, and which of a sample's vectors are averaged."""
        self.dims = store.hidden
        self._store, self._sha256, self._slots = store, dict(sha256), list(slots)

    def identity(self, shard: str) -> dict[str, object]:
        own = self._sha256[Path(shard).with_suffix(".safetensors").name]
        slots = [self._store.facets[slot] for slot in self._slots]
        return {"sha256": own, "center": self._sha256.get(CENTER), "slots": slots}

    def read(self, shard: str, rows: Sequence[int]) -> np.ndarray:
        t = self._store.read([Drawn(shard, row, self._slots) for row in rows])  # [n, K, D]
        total = np.zeros((len(rows), self.dims))
        for slot in t.unbind(dim=1):  # in a fixed order
            total += slot.double().numpy()
        return np.rint(total / len(self._slots) * GRID)


class SidecarVectors:
    """Vectors of a sidecar, divided by their length; of several views of a picture [V, D], those of the first."""

    def __init__(self, folder: Path, name: str, index: Index) -> None:
        self.name = name
        self._sidecar = Sidecar(folder)
        self._sidecar.require_aligned(index)
        manifest = self._sidecar.manifest
        if len(manifest.shape) not in (1, 2) or manifest.dtype == "int64":
            raise InputError(f"{folder} holds {manifest.dtype} {list(manifest.shape)} per sample, and not a vector")
        self.dims = manifest.shape[-1]
        self.digest = self._sidecar.digest

    def identity(self, shard: str) -> dict[str, object]:
        return {"sha256": self._sidecar.manifest.files[Path(shard).with_suffix(".safetensors").name]}

    def read(self, shard: str, rows: Sequence[int]) -> np.ndarray:
        values = self._sidecar.read([(shard, row) for row in rows]).double().numpy()  # [n, D] or [n, V, D]
        return _unit_grid(values if values.ndim == 2 else values[:, 0])


class NpyVectors:
    """Vectors of a memory-mapped .npy file, found by key and divided by their length."""

    def __init__(self, npy: Path, keys: Path, name: str, index: Index) -> None:
        self.name = name
        self._npy = npy
        try:
            self._vectors = np.load(npy, mmap_mode="r", allow_pickle=False)
            lines = keys.read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"cluster.vectors: {npy} with {keys} cannot be read ({error})") from None
        if self._vectors.ndim != 2 or self._vectors.dtype not in (np.float16, np.float32):
            raise InputError(
                f"{npy} holds {self._vectors.dtype} {self._vectors.shape}, and not float32 or float16 [N, D]"
            )
        named = pa.table({"key": pa.array(lines, pa.string())}).column("key")
        if not len(lines) == (different := len(named.unique())) == len(self._vectors):
            raise InputError(
                f"{keys}: {len(lines)} keys, {different} different, for the {len(self._vectors)} vectors of {npy}"
            )
        self.dims = self._vectors.shape[1]
        wanted, rows = index.table.column("key"), index.table.column("row").to_numpy()
        places = pc.call_function("index_in", [wanted], pc.SetLookupOptions(value_set=named))
        if places.null_count:
            missing = wanted.filter(places.is_null())[0].as_py()
            raise InputError(f"{keys}: no vector of the training sample {missing}")
        found = places.to_numpy()
        self._places: dict[str, np.ndarray] = {}
        for shard, own in index.spans().items():
            part = slice(own.start, own.stop)
            self._places[shard] = np.empty(len(own), int)
            self._places[shard][rows[part]] = found[part]

    def identity(self, shard: str) -> dict[str, object]:
        return {"sha256": _content(np.ascontiguousarray(self._vectors[self._places[shard]]))}

    def read(self, shard: str, rows: Sequence[int]) -> np.ndarray:
        found = np.asarray(self._vectors[self._places[shard][list(rows)]], dtype=np.float64)
        if not (finite := np.isfinite(found).all(axis=1)).all():
            raise InputError(f"{self._npy}: the vector of row {rows[int((~finite).argmax())]} of {shard} is not finite")
        return _unit_grid(found)


def _content(vectors: np.ndarray) -> str:
    return bytes_sha256(str((vectors.dtype.str, vectors.shape)).encode() + vectors.tobytes())


def _unit_grid(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, D] of length 1 on the grid; zero stays zero."""
    return np.rint(vectors / np.maximum(lengths(vectors), 1e-300) * GRID)


def lengths(vectors: np.ndarray) -> np.ndarray:
    """The lengths [n, 1] of vectors [n, D], added up from left to right, so alike on every processor."""
    return np.sqrt(np.cumsum(np.square(vectors), axis=1)[:, -1:])


def require_dims(key: str, dims: int, source: VectorSource, samples: int) -> None:
    """Refuse more dimensions than vectors have; `key` is the param that asks for them.

    Raises:
        ParamsError: says how many there may be.
    """
    most = min(source.dims, samples - 1)
    if dims > most:
        raise ParamsError(f"{key} {dims}: {samples} vectors of {source.dims} dimensions have at most {most}; lower it")
