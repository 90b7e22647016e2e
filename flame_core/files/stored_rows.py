"""Reads single rows of safetensors files: only the bytes of the wanted rows, never a whole file.

The store of embeddings (`text/tensor_file.py`) and sidecars (`data/sidecars.py`) use it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_STORAGE = {"F16": np.float16, "F32": np.float32, "BF16": np.int16, "I8": np.int8, "I32": np.int32, "I64": np.int64}


@dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor in its file, and how its numbers are stored; `dtype` is safetensors' name of their type."""

    start: int
    shape: tuple[int, ...]
    dtype: str
    storage: np.dtype

    def typed(self, stored: np.ndarray) -> Tensor:
        """Stored numbers as a tensor of their type, in the same memory."""
        import torch

        tensor = torch.from_numpy(stored)
        return tensor.view(torch.bfloat16) if self.dtype == "BF16" else tensor

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.storage.itemsize

    def row_start(self, row: int, path: Path) -> int:
        """Where a row begins in the file; errors name `path`.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"{path}: no row {row} in {self.shape}")
        return self.start + row * self.row_bytes


class RowFile:
    """A safetensors file: reads its header, and only the requested rows of its tensors.

    `maker` is the command that makes the file again; errors name it.
    """

    def __init__(self, path: Path, maker: str) -> None:
        self.path = path
        self.maker = maker
        self._descriptor: int | None = None
        self._tensors: dict[str, StoredTensor] = {}
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
                    raise InputError(f"{path}: tensor {name} is cut short; run `{maker}` again")
                self._tensors[name] = StoredTensor(start, shape, info["dtype"], np.dtype(storage))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error!r}); run `{maker}` again") from None

    def tensor(self, name: str) -> StoredTensor:
        """Shape and storage of a tensor.

        Raises:
            InputError: the file has no tensor with this name.
        """
        if name not in self._tensors:
            raise InputError(f"{self.path}: holds no tensor {name!r}; run `{self.maker}` again")
        return self._tensors[name]

    def tensor_like(self, name: str, like: StoredTensor) -> StoredTensor:
        """A tensor whose rows have the shape and type of another file's.

        Raises:
            InputError: they have another shape or type.
        """
        tensor = self.tensor(name)
        if tensor.shape[1:] != like.shape[1:] or tensor.dtype != like.dtype:
            raise InputError(
                f"{self.path}: {tensor.shape} in {tensor.dtype}, beside a file of {like.shape} in {like.dtype}; "
                f"run `{self.maker}` again"
            )
        return tensor

    def descriptor(self) -> int:
        """The file, opened once and closed with this object."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        return self._descriptor

    def __del__(self) -> None:
        descriptor: int | None = getattr(self, "_descriptor", None)  # missing if the constructor raised
        if descriptor is not None:
            os.close(descriptor)


class Reads:
    """Reads of byte ranges: cached ones are read at once, all others are requested together."""

    def __init__(self) -> None:
        self._late: list[tuple[memoryview, RowFile, int]] = []

    def fill(self, into: memoryview, file: RowFile, start: int) -> None:
        """Read the bytes of a file from `start` on, by the end of `finish`."""
        try:
            done = os.preadv(file.descriptor(), [into], start, os.RWF_NOWAIT)
        except OSError:  # not cached, or the file system cannot tell
            done = 0
        if done != len(into):
            self._late.append((into, file, start))

    def finish(self) -> None:
        """Wait for the reads that were not cached."""
        for into, file, start in self._late:
            os.posix_fadvise(file.descriptor(), start, len(into), os.POSIX_FADV_WILLNEED)
        for into, file, start in self._late:
            if os.preadv(file.descriptor(), [into], start) != len(into):
                raise InputError(f"{file.path}: ends before byte {start + len(into)}; run `{file.maker}` again")


def read_rows(name: str, files: Sequence[RowFile], rows: Sequence[int]) -> Tensor:
    """B rows, one per entry of `files` and `rows`, as stored [B, ...]; reads only their bytes.

    Raises:
        IndexError: a file has no such row.
        InputError: a file is shorter than it was, or its rows have another shape or type than those of the first.
    """
    first = files[0].tensor(name)
    tensors = {file: file.tensor_like(name, first) for file in dict.fromkeys(files)}
    stored = np.empty((len(files), *first.shape[1:]), first.storage)
    content, size = stored.data.cast("B"), first.row_bytes
    reads = Reads()
    for i, (file, row) in enumerate(zip(files, rows, strict=True)):
        reads.fill(content[i * size : (i + 1) * size], file, tensors[file].row_start(row, file.path))
    reads.finish()
    return first.typed(stored)
