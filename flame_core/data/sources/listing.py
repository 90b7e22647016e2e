"""The list of a source's pairs in `data/raw/<source>/`: everything about them except the pictures' bytes.

`pairs.parquet` has one row per pair in the source's own fixed order. `source.json` describes the source: how many pairs
it lists, which of its files could not be read, and what was not used (`accounting.py`). `manifest.jsonl` (only of
sources that are read in place) has path, size and sha256 of every file. `missing.json` has details about missing
pictures by row, if there are any.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, TypeAdapter

from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.accounting import UnusedGroup
from flame_core.data.sources.keys import safe_key
from flame_core.errors import InputError
from flame_core.files.regular_files import kind_of
from flame_core.files.row_groups import read_rows

PAIRS = "pairs.parquet"
SOURCE = "source.json"
MANIFEST = "manifest.jsonl"
MISSING = "missing.json"
KEPT_COLUMNS = "columns.parquet"  # `keep_columns` of a source as JSON, a row per pair
GROUP = 1024  # rows per parquet row group, the smallest amount that is read

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "file": pa.string(),  # relative to the source's folder of pictures; null: the picture is missing
        # (without a sha256: the unreadable file in the picture's place)
        "offset": pa.int64(),
        "size": pa.int64(),
        "sha256": pa.string(),  # of the picture
        "captions": pa.map_(pa.string(), pa.list_(pa.string())),
        "title": pa.string(),
        "keywords": pa.list_(pa.string()),
        "category": pa.string(),
        "licence": pa.string(),
        "group": pa.string(),
        "split": pa.string(),
    }
)


@dataclass(frozen=True)
class SourceFile:
    """A line of the manifest."""

    path: str
    size: int
    sha256: str


class _Record(BaseModel):
    """The fields of every `source.json`."""

    pairs: int
    problems: list[Problem]
    unused: list[UnusedGroup] = []


_LINE = TypeAdapter(SourceFile)
_SAYINGS = TypeAdapter(dict[str, str])


def read_source(raw: Path) -> dict[str, Any]:
    """The content of `source.json`.

    Raises:
        InputError: the source was not downloaded, or the file is damaged.
    """
    path = raw / SOURCE
    with _intact(path):
        content = path.read_bytes()
        _Record.model_validate_json(content, strict=True)
        return json.loads(content)


def left_out(record: Mapping[str, Any]) -> tuple[list[Problem], list[UnusedGroup]]:
    """The problems and the unused files in the content of `source.json`."""
    known = _Record.model_validate(record)
    return known.problems, known.unused


def read_keys(raw: Path) -> list[str]:
    """The keys of all pairs, in listing order.

    Raises:
        InputError: the list is missing or damaged.
    """
    with _intact(raw / PAIRS):
        keys: list[str] = pq.ParquetFile(raw / PAIRS).read(["key"]).column("key").to_pylist()
        if bad := sum(key is None or safe_key(key) != key for key in keys):
            raise ValueError(f"{bad:,} of its keys are not valid")
    return keys


def read_pairs(raw: Path, pictures: Path, start: int = 0, stop: int | None = None) -> list[RawPair]:
    """The pairs of the rows `start` to `stop` (not included) of the list.

    Raises:
        InputError: the list is missing or damaged.
    """
    with _intact(raw / PAIRS):
        table = read_rows(raw / PAIRS, start, stop)
        if table.schema != SCHEMA:
            raise ValueError("its columns are not those of a list of pairs")
        rows = table.to_pylist()
        missing = read_missing(raw)
        return [_pair(row, missing.get(str(number)), pictures) for number, row in enumerate(rows, start)]


def read_missing(raw: Path) -> dict[str, str]:
    """{row: what is known about its missing picture}, for people.

    Raises:
        InputError: the file is damaged.
    """
    path = raw / MISSING
    return _parsed_missing(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=4)
def _parsed_missing(path: Path, _written: int) -> dict[str, str]:
    with _intact(path):
        return _SAYINGS.validate_json(path.read_bytes(), strict=True)


def _pair(row: dict[str, Any], missing: str | None, pictures: Path) -> RawPair:
    file, offset, size, sha256 = (row.pop(name) for name in ("file", "offset", "size", "sha256"))
    row["captions"] = dict(row["captions"])
    if sha256 is None:
        return RawPair(image=None, unread=file, missing=missing, **row)
    if offset < 0 or size < 0:
        raise ValueError(f"the row of {row['key']} cannot be right")
    return RawPair(image=ImageRef(pictures / file, offset, size, sha256), **row)


def read_manifest(raw: Path) -> Iterator[SourceFile]:
    """The manifest's lines; none if the source stores its pictures in `raw` itself.

    Raises:
        InputError: the manifest is damaged.
    """
    path = raw / MANIFEST
    if path.is_file():
        with _intact(path), path.open(encoding="utf-8") as file:
            for line in file:
                yield _LINE.validate_json(line, strict=True)


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Turn any error from reading a damaged or missing file into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `flame download` first") from None
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RecursionError, MemoryError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged ({said}); run `flame download` again") from None


def check_manifest(raw: Path, pictures: Path) -> None:
    """Refuse a source whose files are missing or have another size than when they were listed.

    Raises:
        InputError: names the file. A change that keeps the size is detected when the file is read.
    """
    for entry in read_manifest(raw):
        path = pictures / entry.path
        try:
            about = path.stat()
            size = about.st_size if stat.S_ISREG(about.st_mode) else -1
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; run `flame download` again to list what is there") from None
        if size < 0:
            raise InputError(f"{path} is {kind_of(about.st_mode)} now; run `flame download` again")
        if size != entry.size:
            raise InputError(
                f"{path} has {size} bytes, and had {entry.size} when it was listed; run `flame download` again"
            )
