"""Vectors of pictures of any folder, found by the sha256 of a picture's bytes: `.flame/search/vectors/<model>/`.

Every file is named by the sha256 of its own bytes and never changed, so a killed run keeps what was finished, two runs
at once do not disturb each other, equal pictures are computed once for all folders, and a damaged file is noticed,
removed, and computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.digest import bytes_sha256, file_sha256
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import scratch_below

log = logging.getLogger(__name__)


class StoredVectors:
    """Vectors [1 + F, D] of pictures by sha256, of one model; `size` is (1 + F) * D."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._rows: dict[str, np.ndarray] = {}
        for path in sorted(folder.glob("*.parquet")):
            if file_sha256(path) != path.stem:
                log.warning("%s is damaged; its pictures are encoded again", path)
                path.unlink(missing_ok=True)
                continue
            table = pq.read_table(path)
            vectors = read_vectors(table.column("vector"), size)
            self._rows |= dict(zip(table.column("sha256").to_pylist(), vectors, strict=True))

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def __getitem__(self, sha256: str) -> np.ndarray:
        return self._rows[sha256]

    def add(self, digests: Sequence[str], vectors: np.ndarray) -> None:
        """Store vectors [N, size] of pictures."""
        table = pa.table({"sha256": pa.array(digests), "vector": vector_array(vectors)})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
        with clear_disk_errors(self._folder), scratch_below(self._folder) as place:
            (place / "part").write_bytes(content)
            (place / "part").replace(self._folder / f"{bytes_sha256(content)}.parquet")
        self._rows |= dict(zip(digests, vectors, strict=True))


def vector_array(vectors: np.ndarray, absent: np.ndarray | None = None) -> pa.Array:
    """Vectors [N, S] as a column of lists; rows where `absent` [N] is true are null."""
    absent = np.zeros(len(vectors), bool) if absent is None else absent
    ends = np.cumsum(np.where(absent, 0, vectors.shape[1]))
    flat = pa.array(np.ascontiguousarray(vectors[~absent], np.float32).reshape(-1))
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends])), flat, mask=pa.array(absent))


def read_vectors(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """Vectors [N, S] of a column of `vector_array`, those that are there."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, size) for chunk in column.chunks]
    return np.concatenate([np.empty((0, size), np.float32), *parts])
