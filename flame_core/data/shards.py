"""Webdataset shards with an index: `{train,val}/00000.tar` with `<key>.jpg` and `<key>.json` per sample.

`index.parquet` has one row per sample with the byte offset of its picture, so training reads by index, in any order,
without scanning tars. Tars are written with fixed metadata, so equal samples give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.digest import canonical_json
from flame_core.errors import InputError

Picture = TypeVar("Picture")
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
INDEX = "index.parquet"
CHOSEN = "auto.json"  # what `auto` in the params of ingest chose: {"pairs": those listed, param: value}; else no file

INDEX_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "split": pa.string(),
        "shard": pa.string(),  # relative to the folder: train/00000.tar
        "row": pa.int32(),  # position in the shard
        "offset": pa.int64(),  # of the picture's bytes in the tar
        "size": pa.int64(),  # of the picture in bytes
        "width": pa.int32(),
        "height": pa.int32(),
        "sha256": pa.string(),  # of the source's picture
        "captions": pa.int32(),  # number of raw captions, all languages
    }
)


@dataclass(frozen=True)
class Sample:
    """A pair as stored in a shard. `meta["captions"]` is {language: [text, ...]}."""

    key: str
    jpeg: bytes
    meta: dict[str, Any]


def write_shard(path: Path, samples: Iterable[Sample]) -> list[tuple[int, int]]:
    """Write samples to a tar and return (offset, size) of each picture, in order."""
    places: list[tuple[int, int]] = []
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            places.append((add_member(tar, f"{sample.key}.jpg", sample.jpeg), len(sample.jpeg)))
            add_member(tar, f"{sample.key}.json", canonical_json(sample.meta).encode())
    return places


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file with fixed metadata to a tar that is being written; returns the place of its bytes."""
    info = tarfile.TarInfo(name)  # mtime, uid and gid are 0 by default
    info.size = len(content)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of a shard written by `write_shard`, in order.

    Raises:
        InputError: the tar is damaged; names the file and the last key that was read.
    """
    for key, jpeg, meta in _pairs(path, lambda picture: picture.read()):
        yield Sample(key, jpeg, meta)


def read_metas(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, meta) of each sample of a shard, in order; no picture is read.

    Raises:
        InputError: as `read_shard`.
    """
    for key, _, meta in _pairs(path, lambda picture: None):
        yield key, meta


def _pairs(path: Path, look: Callable[[IO[bytes]], Picture]) -> Iterator[tuple[str, Picture, dict[str, Any]]]:
    """(key, what `look` gives for the opened picture, meta) of each sample of a shard."""
    key = "(start)"
    with path.open("rb") as file:  # tarfile reads a truncated archive without an error
        file.seek(-min(path.stat().st_size, 2 * tarfile.BLOCKSIZE), os.SEEK_END)
        if file.read() != bytes(2 * tarfile.BLOCKSIZE):
            raise InputError(f"{path}: truncated, its end mark is missing; run `flame ingest` again")
    try:
        with tarfile.open(path, "r:") as tar:
            while (image := tar.next()) is not None:
                key = image.name.removesuffix(".jpg")
                picture = look(_opened(tar, image))
                meta = tar.next()
                if meta is None or meta.name != f"{key}.json":
                    raise InputError(f"{path}: sample {key} has no .json after its .jpg")
                yield key, picture, json.loads(_opened(tar, meta).read())
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise InputError(f"{path}: damaged at sample {key}: {error}") from error


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise InputError(f"{tar.name}: {member.name} is not a file")
    return file


@dataclass(frozen=True)
class IndexRow:
    """One row of the index; fields as in `INDEX_SCHEMA`."""

    key: str
    split: str
    shard: str
    row: int
    offset: int
    size: int
    width: int
    height: int
    sha256: str
    captions: int


class Index(Sequence[IndexRow]):
    """Rows of `index.parquet` in shard order, stored as columns, because millions of rows then take 150 bytes each.

    As `IndexRow`s they take 800 bytes each, so make those of one shard at a time (`by_shard`). A copy for another
    process holds the columns of its own rows only, even if they are a part of a larger index.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        self._digest: str | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[IndexRow]:
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from (IndexRow(**row) for row in batch.to_pylist())

    @overload
    def __getitem__(self, place: int) -> IndexRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[IndexRow]: ...
    def __getitem__(self, place: int | slice) -> IndexRow | list[IndexRow]:
        if isinstance(place, slice):
            return list(Index(self.table[place]))
        return next(iter(Index(self.table.slice(range(len(self))[place], 1))))

    def digest(self) -> str:
        """sha256 of the rows; one split's does not depend on the other. Computed once, because it reads all rows."""
        if self._digest is None:
            content = hashlib.sha256()
            for batch in self.table.to_batches(max_chunksize=4096):
                content.update(canonical_json(batch.to_pydict()).encode())
            self._digest = content.hexdigest()
        return self._digest

    def shard_sizes(self) -> dict[str, int]:
        """Number of samples per shard."""
        return {each["values"]: each["counts"] for each in self.table.column("shard").value_counts().to_pylist()}

    def keys(self) -> Iterator[str]:
        """The keys in order, a few at a time."""
        for batch in self.table.select(["key"]).to_batches(max_chunksize=4096):
            yield from batch.column(0).to_pylist()

    def spans(self) -> dict[str, range]:
        """By shard, the numbers of its rows, in the order of the index.

        Raises:
            InputError: the rows of a shard do not follow one another.
        """
        shards, starts = self._runs()
        found = dict(zip(shards, map(range, starts, [*starts[1:], len(self)]), strict=True))
        if len(found) < len(shards):
            torn = Counter(shards).most_common(1)[0][0]
            raise InputError(f"{INDEX}: the rows of {torn} do not follow one another; run `flame ingest` again")
        return found

    def by_shard(self) -> dict[str, Index]:
        """The rows of each shard, by the names of the shards. They share the columns of this index.

        Raises:
            InputError: the rows of a shard do not follow one another.
        """
        return {shard: Index(self.table.slice(own.start, len(own))) for shard, own in sorted(self.spans().items())}

    def in_order(self) -> Index:
        """The rows by the names of the shards and their places there; this index, if they lie so, as is usual."""
        shards, starts = self._runs()
        rows = self.table.column("row").to_numpy()
        falls = np.flatnonzero(rows[1:] <= rows[:-1]) + 1
        if shards == sorted(set(shards)) and np.isin(falls, starts).all():
            return self
        return Index(self.table.sort_by([("shard", "ascending"), ("row", "ascending")]))

    def _runs(self) -> tuple[list[str], list[int]]:
        """The shards of rows that follow one another, and the number of the first row of each such run."""
        column = self.table.column("shard")
        changes = pc.call_function("not_equal", [column.slice(1), column.slice(0, max(len(self) - 1, 0))]).to_numpy()
        starts = [*range(min(len(self), 1)), *(np.flatnonzero(changes) + 1).tolist()]
        return column.take(pa.array(starts, pa.int64())).to_pylist(), starts

    def __reduce__(self) -> tuple[Callable[[bytes], Index], tuple[bytes]]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as stream:  # a pickled slice would hold the whole table
            stream.write_table(self.table)
        return _unpickled, (sink.getvalue().to_pybytes(),)


def _unpickled(content: bytes) -> Index:
    return Index(pa.ipc.open_stream(content).read_all())


def read_index(shards: Path, split: Split | None = None) -> Index:
    """The index of a folder of shards, for one split or both.

    Raises:
        InputError: the index is missing or damaged.
    """
    path = shards / INDEX
    if not path.is_file():
        raise InputError(f"{path} is missing: run `flame ingest` first")
    try:
        table = pq.ParquetFile(path).read().cast(INDEX_SCHEMA)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable index ({error}); run `flame ingest` again") from None
    return Index(table if split is None else table.filter(pc.field("split") == split))


def read_chosen(shards: Path) -> dict[str, Any]:
    """{param: value} of `ingest`, for params that were `auto`.

    Raises:
        InputError: the record is damaged.
    """
    path = shards / CHOSEN
    try:
        return {name: value for name, value in json.loads(path.read_text("utf-8")).items() if name != "pairs"}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): run `flame ingest` again") from None


def shard_names(shards: Path, split: Split) -> list[str]:
    """Names of the split's shards, such as `train/00000.tar`, in order."""
    return sorted(path.relative_to(shards).as_posix() for path in (shards / split).glob("*.tar"))


class StoredPicture(Protocol):
    """The fields of an index row that are needed to read its picture."""

    @property
    def key(self) -> str: ...
    @property
    def shard(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...


class PictureReader:
    """Reads single pictures from a folder of shards by index row; keeps the tars open."""

    def __init__(self, shards: Path) -> None:
        self._shards = shards
        self._files: dict[str, int] = {}

    def jpeg(self, row: StoredPicture) -> bytes:
        """The encoded picture of a row."""
        file = self._files.get(row.shard)
        if file is None:
            try:
                file = self._files[row.shard] = os.open(self._shards / row.shard, os.O_RDONLY)
            except FileNotFoundError:
                raise InputError(
                    f"{self._shards / row.shard} is missing, but the index names it; run `flame ingest`"
                ) from None
        content = os.pread(file, row.size, row.offset)
        if len(content) != row.size:
            raise InputError(f"{self._shards / row.shard}: shorter than its index says at sample {row.key}")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {"_shards": self._shards, "_files": {}}  # file descriptors are not valid in worker processes
