"""The embedding store: facet embeddings of every training sample, and texts for evaluation found by content.

`data/embeddings/`:

    manifest.json                  what the vectors depend on, and how the facets are named
    train/00000.safetensors        [rows, facets, hidden], aligned with data/shards/train/00000.tar
    texts/00000.safetensors        one tensor a caption kind, [texts, facets of the kind, hidden]
    texts/00000.parquet            kind, row and text of each of them
    tokenizer.json                 the LLM's, for recipes that train a text side of their own
    center.safetensors             mean of the training embeddings, [facets, hidden]; only with text.center

Vectors are unit vectors in `text.store_dtype`. int8 stores what a vector is beyond the mean of its file and facet, with
a float32 scale a vector: `<name>.offset` [facets, hidden] and `<name>.scale` [rows, facets]. Without the mean, the few
huge components that all of an LLM's vectors share would take the 127 steps for themselves. Centring happens when they
are read, so a stored row depends on its caption and the manifest alone (in int8 on its file's mean too). Reading maps
the files, touches the rows that are asked for, and never unpickles.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.errors import ComputationError, InputError
from flame_core.text.facets import REFERENCE
from flame_core.text.manifest import read_manifest

EMBEDDINGS = "embeddings"  # name of the one tensor of a training shard
SCALE, OFFSET = ".scale", ".offset"  # behind the name of an int8 tensor: those of its scales and of its means
CENTER = "center.safetensors"
TOKENIZER = "tokenizer.json"
_STORAGE = {"F16": np.float16, "F32": np.float32, "BF16": np.uint16, "I8": np.int8}
TEXT_SCHEMA = pa.schema({"kind": pa.string(), "row": pa.int32(), "text": pa.string()})


def tensor_bytes(tensors: dict[str, np.ndarray], dtype: str) -> bytes:
    """Float32 arrays [rows, facets, hidden] as safetensors of `dtype`; the same bytes for equal values (no metadata).

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
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header: dict[str, Any] = json.loads(file.read(length))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable safetensors file ({error}); run `flame embed` again") from None
        header.pop("__metadata__", None)
        self._path = path
        self._descriptor: int | None = None
        self._tensors: dict[str, _Tensor] = {}
        self._offsets: dict[str, np.ndarray] = {}
        size = path.stat().st_size
        for name, info in header.items():
            start, end = (8 + length + offset for offset in info["data_offsets"])
            storage = _STORAGE.get(info["dtype"])
            shape = tuple(info["shape"])
            if storage is None or end > size or end - start != math.prod(shape) * np.dtype(storage).itemsize:
                raise InputError(f"{path}: tensor {name} is cut short or of an unknown type; run `flame embed` again")
            self._tensors[name] = _Tensor(start, shape, info["dtype"], np.dtype(storage))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def read(self, name: str, index: Any) -> np.ndarray:
        """`tensor[index]` as float32, from the mapped file; of an int8 tensor `index` chooses rows."""
        if name not in self._tensors:
            raise InputError(f"{self._path}: holds no tensor {name!r}")
        tensor = self._tensors[name]
        if not math.prod(tensor.shape):
            return np.empty(tensor.shape, np.float32)[index]
        mapped = np.memmap(self._path, tensor.storage, "r", tensor.start, tensor.shape)
        values = tensor.floats(np.asarray(mapped[index]))
        if tensor.dtype == "I8":
            values = values * self.read(name + SCALE, index)[..., None] + self._offset(name)
        return values

    def read_vectors(self, name: str, row: int, columns: Sequence[int]) -> np.ndarray:
        """`tensor[row, columns]` of a tensor [rows, columns, D] as float32, by reads of just these bytes."""
        tensor = self._tensors[name]
        rows, width, hidden = tensor.shape
        if not (0 <= row < rows and all(0 <= column < width for column in columns)):
            raise IndexError(f"{self._path}: no row {row} with columns {list(columns)} in {tensor.shape}")
        size = hidden * tensor.storage.itemsize
        first = tensor.start + row * width * size
        stored = np.frombuffer(b"".join(self._bytes(first + c * size, size) for c in columns), tensor.storage)
        values = tensor.floats(stored.reshape(len(columns), hidden))
        if tensor.dtype == "I8":
            start = self._tensors[name + SCALE].start + row * width * 4
            scale = np.frombuffer(self._bytes(start, width * 4), np.float32)[list(columns), None]
            values = values * scale + self._offset(name)[list(columns)]
        return values

    def _offset(self, name: str) -> np.ndarray:
        """The means [facets, hidden] of an int8 tensor, read once."""
        if name not in self._offsets:
            self._offsets[name] = self.read(name + OFFSET, slice(None))
        return self._offsets[name]

    def _bytes(self, offset: int, size: int) -> bytes:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        descriptor: int | None = getattr(self, "_descriptor", None)  # absent where the constructor raised
        if descriptor is not None:
            os.close(descriptor)


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in its file, and how its numbers are stored."""

    start: int
    shape: tuple[int, ...]
    dtype: str
    storage: np.dtype

    def floats(self, values: np.ndarray) -> np.ndarray:
        """Stored numbers as float32."""
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors over their length, along the last axis; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _load_center(embeddings: Path, manifest: dict[str, Any]) -> np.ndarray | None:
    if manifest["center"] == "none":
        return None
    return TensorFile(embeddings / CENTER).read(EMBEDDINGS, slice(None))


class TrainStore:
    """Facet embeddings of the training samples, aligned with the shards."""

    def __init__(self, embeddings: Path) -> None:
        self.manifest = read_manifest(embeddings)
        self.facets: list[str] = self.manifest["facets"]
        self.hidden: int = self.manifest["hidden"]
        self._folder = embeddings
        self._center = _load_center(embeddings, self.manifest)
        self._files: dict[str, TensorFile] = {}

    def rows(self, shard: str) -> int:
        """Number of samples in the embeddings of a shard."""
        return self._file(shard).shape(EMBEDDINGS)[0]

    def read(self, shard: str, row: int, facets: Sequence[int]) -> np.ndarray:
        """The given facets of one sample: unit vectors [len(facets), hidden] in float32."""
        t = self._file(shard).read_vectors(EMBEDDINGS, row, facets)
        return t if self._center is None else unit(t - self._center[list(facets)])

    def _file(self, shard: str) -> TensorFile:
        if shard not in self._files:
            self._files[shard] = TensorFile(self._folder / Path(shard).with_suffix(".safetensors"))
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # maps do not travel to worker processes


class TextStore:
    """Texts that were embedded for evaluation, found by kind and content."""

    def __init__(self, embeddings: Path) -> None:
        self.manifest = read_manifest(embeddings)
        self._folder = embeddings
        self._center = _load_center(embeddings, self.manifest)
        self._files: dict[str, TensorFile] = {}
        self._places: dict[tuple[str, str], tuple[str, int]] = {}
        for path in sorted((embeddings / "texts").glob("*.parquet")):
            for row in pq.ParquetFile(path).read().to_pylist():
                self._places.setdefault((row["kind"], row["text"]), (path.stem, row["row"]))

    @classmethod
    def open(cls, embeddings: Path) -> TextStore:
        """The text store below `data/embeddings`."""
        return cls(embeddings)

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self._places

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit facet embeddings of texts, [N, K of the kind, hidden] in float32, centred when the params say so.

        Raises:
            InputError: names a text that was not embedded.
        """
        try:
            places = [self._places[kind, text] for text in texts]
        except KeyError as error:
            missing = error.args[0][1]
            raise InputError(
                f"{self._folder}: no embedding of the {kind} text {missing[:200]!r}; run `flame embed`, which embeds "
                "what evaluation needs, or `flame embed-texts` where a benchmark is new"
            ) from None
        t = np.empty((len(texts), len(self._facets(kind)), self.manifest["hidden"]), dtype=np.float32)
        for i, (file, row) in enumerate(places):
            if file not in self._files:
                self._files[file] = TensorFile(self._folder / "texts" / f"{file}.safetensors")
            t[i] = self._files[file].read(kind, row)
        return self.centred(kind, t)

    def centred(self, kind: str, t: np.ndarray) -> np.ndarray:
        """Unit vectors [N, K of the kind, hidden] from the LLM as `lookup` returns them: centred, or as they are."""
        if self._center is None:
            return t
        return unit(t - self._center[[self._center_row(name) for name in self._facets(kind)]])

    def _facets(self, kind: str) -> list[str]:
        if kind.endswith(REFERENCE):
            return [f"{kind}/1"]
        return [name for name in self.manifest["text_facets"] if name.startswith(f"{kind}/")]

    def _center_row(self, facet: str) -> int:
        """Which mean a facet is centred by: its own where it was trained on, else that of the first facet."""
        trained: list[str] = self.manifest["facets"]
        return trained.index(facet) if facet in trained else 0


def write_texts(path: Path, vectors: Mapping[str, tuple[list[str], np.ndarray]], dtype: str) -> None:
    """Write a safetensors file of vectors [N, K, hidden] by kind, and beside it a parquet file with their texts."""
    rows = [
        {"kind": kind, "row": i, "text": text} for kind, (texts, _) in vectors.items() for i, text in enumerate(texts)
    ]
    write_tensors(path, {kind: t for kind, (_, t) in vectors.items()}, dtype)
    table = pa.Table.from_pylist(rows, schema=TEXT_SCHEMA)
    pq.write_table(table, path.with_suffix(".parquet"), compression="zstd")
