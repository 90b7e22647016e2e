"""Safetensors files of vectors, [rows, columns, D]: written in a storage type, read row by row, never unpickled.

int8 stores them as `files/int8_rows.py` says, with `<name>.offset` [columns, D] and `<name>.scale` [rows, columns].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.errors import ComputationError
from flame_core.files.int8_rows import OFFSET, SCALE, coded
from flame_core.files.stored_rows import Reads, RowFile

if TYPE_CHECKING:
    from torch import Tensor


def tensor_bytes(tensors: dict[str, np.ndarray], dtype: str) -> bytes:
    """Float32 arrays [rows, columns, D] as safetensors of `dtype`; the same bytes for equal values (no metadata).

    Raises:
        ComputationError: a value is not finite in `dtype`.
    """
    import torch
    from safetensors.torch import save

    converted = {}
    for name, array in tensors.items():
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if dtype == "int8" and tensor.isfinite().all():
            converted |= coded(name, tensor)
        else:
            converted[name] = tensor if dtype == "int8" else tensor.to(getattr(torch, dtype))
        if not converted[name].isfinite().all():
            raise ComputationError(f"embeddings of {name} are not all finite in {dtype}; use a wider text.store_dtype")
    return save(converted)


def write_tensors(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """Write `tensor_bytes`."""
    path.write_bytes(tensor_bytes(tensors, dtype))


class TensorFile(RowFile):
    """A file of the store's vectors."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "flame embed")
        self._offsets: dict[str, Tensor] = {}

    def read(self, name: str, index: Any) -> np.ndarray:
        """`tensor[index]` as float32, from the mapped file; for an int8 tensor, `index` selects rows."""
        tensor = self.tensor(name)
        if not math.prod(tensor.shape):
            return np.empty(tensor.shape, np.float32)[index]
        import torch

        mapped = np.memmap(self.path, tensor.storage, "c", tensor.start, tensor.shape)  # torch asks for writable memory
        values = tensor.typed(np.asarray(mapped[index])).to(torch.float32, copy=True)
        if tensor.dtype == "I8":
            values.mul_(torch.from_numpy(self.read(name + SCALE, index))[..., None]).add_(self.offset(name))
        return values.numpy()

    def offset(self, name: str) -> Tensor:
        """The means [columns, D] of an int8 tensor, read once."""
        import torch

        if name not in self._offsets:
            self._offsets[name] = torch.from_numpy(
                self.read(name + OFFSET, slice(None))
            )  # a memory map would stay open
        return self._offsets[name]


def read_vectors(
    name: str, files: Sequence[TensorFile], rows: Sequence[int], columns: Sequence[Sequence[int]] | np.ndarray
) -> Tensor:
    """The vectors [B, K, D] of B rows, one per entry of `files`, and K columns of each; only these bytes are read.

    Vectors that are adjacent both here and in a file are one read. Data that are not in the page cache yet are
    requested all at once. Floats stay as they are stored; int8 becomes float32.

    Raises:
        IndexError: a file has no such row or column.
        InputError: a file is shorter than it was, or its rows are of another shape or type than those of the first.
    """
    first = files[0].tensor(name)
    _, width, hidden = first.shape
    tensors = {file: file.tensor_like(name, first) for file in dict.fromkeys(files)}
    chosen = np.array(columns)  # [B, K]
    stored = np.empty((*chosen.shape, hidden), first.storage)
    size = hidden * first.storage.itemsize
    k = chosen.shape[1]
    row_starts = []
    for file, row in zip(files, rows, strict=True):
        row_starts.append(tensors[file].row_start(row, file.path))
    if chosen.min() < 0 or chosen.max() >= width:
        raise IndexError(f"{files[0].path}: columns {chosen.min()} to {chosen.max()} of {width}")
    starts = np.array(row_starts)[:, None] + chosen * size
    last = np.ones(chosen.shape, bool)  # whether it ends a run of adjacent vectors
    last[:, :-1] = np.diff(starts, axis=1) != size
    reads = Reads()
    content, in_file, begin = stored.data.cast("B"), starts.ravel().tolist(), 0
    for end in (last.ravel().nonzero()[0] + 1).tolist():
        reads.fill(content[begin * size : end * size], files[begin // k], in_file[begin])
        begin = end
    if first.dtype != "I8":
        reads.finish()
        return first.typed(stored)
    scales = np.empty((len(files), width), np.float32)
    for file, row, scale in zip(files, rows, scales, strict=True):
        reads.fill(scale.data.cast("B"), file, file.tensor(name + SCALE).start + row * scale.nbytes)
    reads.finish()
    return _decoded([file.offset(name) for file in files], chosen, stored, scales)


def _decoded(offsets: Sequence[Tensor], columns: np.ndarray, codes: np.ndarray, scales: np.ndarray) -> Tensor:
    """Vectors [B, K, D] from their files' means [columns, D], codes [B, K, D] and scales [B, columns]."""
    import torch

    chosen, stored = torch.from_numpy(columns), torch.from_numpy(codes)
    scale = torch.from_numpy(scales).gather(1, chosen)[..., None]
    t = torch.empty(codes.shape)
    for i, offset in enumerate(offsets):  # one sample at a time fits the processor's cache
        torch.index_select(offset, 0, chosen[i], out=t[i]).add_(stored[i].float().mul_(scale[i]))
    return t
