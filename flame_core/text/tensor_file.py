"""Safetensors files of vectors, [rows, columns, D]: written in a storage type, read row by row, never unpickled.

int8 stores what a vector is beyond the mean of its file and column, with a float32 scale a vector: `<name>.offset`
[columns, D] and `<name>.scale` [rows, columns]. Without the mean, the few huge components that all of an LLM's vectors
share would take the 127 steps for themselves.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.errors import ComputationError, InputError

if TYPE_CHECKING:
    from torch import Tensor

SCALE, OFFSET = ".scale", ".offset"  # behind the name of an int8 tensor: those of its scales and of its means
_STORAGE = {"F16": np.float16, "F32": np.float32, "BF16": np.int16, "I8": np.int8}


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
            offset = tensor.double().sum(dim=0).div(max(1, len(tensor))).float()
            own = tensor - offset
            scale = own.abs().amax(dim=-1) / 127  # so the largest number of a vector uses all 7 bits
            codes = (own / scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).round()
            converted |= {name: codes.to(torch.int8), name + SCALE: scale, name + OFFSET: offset}
        else:
            converted[name] = tensor if dtype == "int8" else tensor.to(getattr(torch, dtype))
        if not converted[name].isfinite().all():
            raise ComputationError(f"embeddings of {name} are not all finite in {dtype}; use a wider text.store_dtype")
    return save(converted)


def write_tensors(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """Write `tensor_bytes`."""
    path.write_bytes(tensor_bytes(tensors, dtype))


class TensorFile:
    """A safetensors file whose header is read and whose tensors are not: rows come as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._tensors: dict[str, _Tensor] = {}
        self._offsets: dict[str, Tensor] = {}
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header: dict[str, Any] = json.loads(file.read(min(length, size)))
            header.pop("__metadata__", None)
            for name, info in header.items():
                start, end = (8 + length + int(offset) for offset in info["data_offsets"])
                storage, shape = _STORAGE[info["dtype"]], tuple(map(int, info["shape"]))
                if end > size or end - start != math.prod(shape) * np.dtype(storage).itemsize:
                    raise InputError(f"{path}: tensor {name} is cut short; run `flame embed` again")
                self._tensors[name] = _Tensor(start, shape, info["dtype"], np.dtype(storage))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error!r}); run `flame embed` again") from None

    def tensor(self, name: str) -> _Tensor:
        """Shape and storage of a tensor.

        Raises:
            InputError: the file holds no tensor of this name.
        """
        if name not in self._tensors:
            raise InputError(f"{self.path}: holds no tensor {name!r}")
        return self._tensors[name]

    def read(self, name: str, index: Any) -> np.ndarray:
        """`tensor[index]` as float32, from the mapped file; of an int8 tensor `index` chooses rows."""
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
            self._offsets[name] = torch.from_numpy(self.read(name + OFFSET, slice(None)))  # a map would stay open
        return self._offsets[name]

    def tensor_like(self, name: str, like: _Tensor) -> _Tensor:
        """A tensor whose rows are as those of another file's.

        Raises:
            InputError: they are of another shape or type.
        """
        tensor = self.tensor(name)
        if tensor.shape[1:] != like.shape[1:] or tensor.dtype != like.dtype:
            raise InputError(
                f"{self.path}: {tensor.shape} in {tensor.dtype}, beside a file of {like.shape} in {like.dtype}; "
                "run `flame embed` again"
            )
        return tensor

    def descriptor(self) -> int:
        """The file, opened once and closed with this object."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        return self._descriptor

    def __del__(self) -> None:
        descriptor: int | None = getattr(self, "_descriptor", None)  # absent where the constructor raised
        if descriptor is not None:
            os.close(descriptor)


def read_vectors(
    name: str, files: Sequence[TensorFile], rows: Sequence[int], columns: Sequence[Sequence[int]]
) -> Tensor:
    """The vectors [B, K, D] of B rows in as many files, K columns each, by reads of just these bytes.

    Vectors that follow one another both here and in a file are one read. What the kernel does not hold yet it is asked
    for all at once. Floats stay as they are stored; int8 becomes float32.

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
        tensor = tensors[file]
        if not 0 <= row < tensor.shape[0]:
            raise IndexError(f"{file.path}: no row {row} in {tensor.shape}")
        row_starts.append(tensor.start + row * width * size)
    if chosen.min() < 0 or chosen.max() >= width:
        raise IndexError(f"{files[0].path}: columns {chosen.min()} to {chosen.max()} of {width}")
    starts = np.array(row_starts)[:, None] + chosen * size
    last = np.ones(chosen.shape, bool)  # of a run of vectors that follow one another
    last[:, :-1] = np.diff(starts, axis=1) != size
    reads = _Reads()
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
    """Vectors [B, K, D] of their files' means [columns, D] each, codes [B, K, D] and scales [B, columns]."""
    import torch

    chosen, stored = torch.from_numpy(columns), torch.from_numpy(codes)
    scale = torch.from_numpy(scales).gather(1, chosen)[..., None]
    t = torch.empty(codes.shape)
    for i, offset in enumerate(offsets):  # a sample at a time stays in the processor's cache
        torch.index_select(offset, 0, chosen[i], out=t[i]).add_(stored[i].float().mul_(scale[i]))
    return t


class _Reads:
    """Reads of byte ranges: what the kernel holds is taken at once, the rest is asked for together."""

    def __init__(self) -> None:
        self._late: list[tuple[memoryview, TensorFile, int]] = []

    def fill(self, into: memoryview, file: TensorFile, start: int) -> None:
        """Read the bytes of a file from `start` on, by the end of `finish`."""
        try:
            done = os.preadv(file.descriptor(), [into], start, os.RWF_NOWAIT)
        except OSError:  # nothing of it is held, or the file system cannot tell
            done = 0
        if done != len(into):
            self._late.append((into, file, start))

    def finish(self) -> None:
        """Wait for what was not there."""
        for into, file, start in self._late:
            os.posix_fadvise(file.descriptor(), start, len(into), os.POSIX_FADV_WILLNEED)
        for into, file, start in self._late:
            if os.preadv(file.descriptor(), [into], start) != len(into):
                raise InputError(f"{file.path}: ends before byte {start + len(into)}; run `flame embed` again")


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in its file, and how its numbers are stored."""

    start: int
    shape: tuple[int, ...]
    dtype: str
    storage: np.dtype

    def typed(self, stored: np.ndarray) -> Tensor:
        """Stored numbers as a tensor of their type, in the same memory."""
        import torch

        tensor = torch.from_numpy(stored)
        return tensor.view(torch.bfloat16) if self.dtype == "BF16" else tensor
