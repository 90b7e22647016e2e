"""Reads some rows of a parquet file that is read piece by piece: only the row groups that hold them. Writes such files.

A file of many row groups has a large footer. So the parsed footers of the last few files are kept in each process. One
of a file that was written again is parsed again, and one of a file that was only just written is not kept, because the
clock of a file system may not tell it from the next one.

Files are opened by Arrow. Its threads may be the last to let go of a file, and if it were Python's, that would end a
process that is just ending by itself (SIGABRT).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_FILES = 4  # footers that are kept; one of 10,000 row groups and ten columns takes some 40 MB
_SETTLED = 10**9  # nanoseconds since a file's last change, after which its time tells it from a later one


@dataclass(frozen=True)
class _Footer:
    metadata: pq.FileMetaData
    ends: NDArray[np.int64]  # [groups]: the row after the last one of each row group


_Version = tuple[str, int, int, int]  # path, inode, size and time of a file
_footers: dict[_Version, _Footer] = {}  # the last used ones last
_lock = Lock()


def read_rows(path: Path, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows `start` to `stop` (not included; by default the end) of a parquet file, with all or some columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, OSError: it is no parquet file, is damaged, or has fewer rows.
    """
    version = _version(path)
    with pa.OSFile(str(path)) as file:
        footer = _footer(version, file) if _version(path) == version else _parsed(file)
        rows = footer.metadata.num_rows
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise ValueError(f"it has {rows:,} rows, and those from {start:,} to {stop:,} are asked for")
        with pq.ParquetFile(file, metadata=footer.metadata) as table:
            if start == stop:
                return table.read_row_groups([], columns)
            first = int(np.searchsorted(footer.ends, start, "right"))
            last = int(np.searchsorted(footer.ends, stop, "left"))
            before = int(footer.ends[first - 1]) if first else 0
            return table.read_row_groups(list(range(first, last + 1)), columns).slice(start - before, stop - start)


def _version(path: Path) -> _Version:
    """What tells a file from the one that was, or will be, in its place."""
    about = path.stat()
    return str(path.absolute()), about.st_ino, about.st_size, about.st_mtime_ns


def _footer(version: _Version, file: pa.OSFile) -> _Footer:
    """The footer of an open file, kept from before or parsed."""
    with _lock:
        found = _footers.pop(version, None) or _parsed(file)
        if time.time_ns() - version[-1] > _SETTLED:
            _footers[version] = found
        while len(_footers) > _FILES:
            del _footers[next(iter(_footers))]
    return found


def _parsed(file: pa.OSFile) -> _Footer:
    metadata = pq.read_metadata(file)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if sum(sizes) != metadata.num_rows or min(sizes, default=0) < 0:
        raise ValueError(f"its row groups have {sum(sizes):,} rows, and its footer says {metadata.num_rows:,}")
    return _Footer(metadata, np.cumsum(sizes, dtype=np.int64))


def in_groups(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows of tables, one after another, as tables of `size` rows each; the last one has the rest, if any."""
    left: pa.Table | None = None
    for table in tables:
        rows = table if left is None else pa.concat_tables([left, table])
        whole = len(rows) - len(rows) % size
        yield from (rows.slice(start, size).combine_chunks() for start in range(0, whole, size))
        left = rows.slice(whole).combine_chunks()
    if left is not None and left.num_rows:
        yield left
