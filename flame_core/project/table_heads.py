"""The first rows of a table, as far as they say what its columns are."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import mode
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.picture_kinds import is_picture
from flame_core.data.sources.delimited import DELIMITERS
from flame_core.data.sources.file_names import FileNames, without_number
from flame_core.data.sources.json_rows import document_records, first_objects
from flame_core.data.sources.record import read_object
from flame_core.data.sources.table import DELIMITED
from flame_core.data.text_files import TextError, text_lines, undecoded
from flame_core.files.regular_files import open_regular
from flame_core.params.sources import Delimiter

_ROWS = 200
_ENCODINGS = ("utf-8", "cp1252", "latin-1")
_NO_FILE = re.compile(r"://|[\t|;]")  # in an address, or in several fields


@dataclass(frozen=True)
class Head:
    """The first rows of a table, whose columns were named here if it is `headless`.

    `by_name` says that they are the captions of a document by the names in its column `image`.
    """

    names: list[str]
    rows: Sequence[Mapping[str, Any]]
    delimiter: Delimiter | None = None
    encoding: str = "utf-8"
    mixed: int = 0
    headless: bool = False
    by_name: bool = False


def read_head(path: Path, files: FileNames | None = None, caption: str | None = None) -> Head | None:
    """The first rows of a table; None if it cannot be read as one. It has no header if its first line names a file."""
    try:
        match path.suffix.lower():
            case suffix if suffix in DELIMITED:
                return _delimited(path, files)
            case ".json":
                read = _document(path, caption)
                return None if isinstance(read, str) else read
            case ".jsonl":
                return head_of(_objects(islice((line for line in text_lines(path, "utf-8") if line.strip()), _ROWS)))
            case _:
                with pq.ParquetFile(path) as file:
                    batch = next(file.iter_batches(batch_size=_ROWS // 4), None)
                    return Head(file.schema_arrow.names, batch.to_pylist() if batch else [])
    except (TextError, csv.Error, pa.ArrowException, OSError, UnicodeError):
        return None


def why_unread(path: Path, caption: str | None = None) -> str | None:
    """Why a table that is one document cannot be read; None if it can be."""
    if path.suffix.lower() == ".json" and isinstance(read := _document(path, caption), str):
        return read
    return None


def _document(path: Path, caption: str | None) -> Head | str:
    """The first rows of a document, or why it is no table."""
    try:
        about = path.stat()
        return _read_document(path, caption or "caption", about.st_size, about.st_mtime_ns)
    except OSError as error:
        return str(error)


@lru_cache(maxsize=100)
def _read_document(path: Path, caption: str, _size: int, _changed: int) -> Head | str:
    """The same, of a document of this size and time, which is read as a whole, and only once."""
    try:
        with open_regular(path) as file:
            records = document_records(file, ("image", caption))
            return replace(head_of(first_objects(records, _ROWS)), by_name=records.by_name)
    except TextError as error:
        return str(error)


def _objects(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The JSON objects in lines; a line that is none is left out, as in the source that reads the whole table."""
    rows = []
    for line in lines:
        with suppress(TextError):
            rows += [] if undecoded(line) else [read_object(line)]
    return rows


def _delimited(path: Path, files: FileNames | None) -> Head:
    lines: list[str] = []
    mixed = 0
    encoding = _ENCODINGS[0]
    for encoding in _ENCODINGS:
        lines = [line for line in islice(text_lines(path, encoding), _ROWS) if line.strip()]
        if not any(map(undecoded, lines)):
            break
        if encoding == "utf-8":
            mixed = sum(not line.isascii() and not undecoded(line) for line in lines)
    parsed: dict[Delimiter, list[list[str]]] = {
        delimiter: list(csv.reader(lines, delimiter=delimiter)) for delimiter in DELIMITERS
    }
    bare: dict[Delimiter, list[list[str]]] = {**parsed, "\t": [line.rstrip("\r\n").split("\t") for line in lines]}
    for is_file in (lambda cell: files is not None and files.find(cell) is not None, names_file):
        for delimiter, rows in bare.items():
            place = next((place for place, cell in enumerate(rows[0] if rows else []) if is_file(cell)), None)
            if place is not None and len(rows[0]) > 1:
                count = mode(map(len, rows))  # a caption may hold the delimiter
                names = _names(max(count, place + 1, 2), place)
                cells = [dict(zip(names, row, strict=False)) for row in rows]
                return Head(names, cells, delimiter, encoding, mixed, headless=True)
    likeliest = max(parsed, key=lambda one: len(parsed[one][0]) if parsed[one] else 0)
    names, *rows = parsed[likeliest] or [[]]
    return Head(names, [dict(zip(names, row, strict=False)) for row in rows], likeliest, encoding, mixed)


def names_file(cell: Any) -> bool:
    """Whether a cell names a file of a picture, which may be missing."""
    return isinstance(cell, str) and not _NO_FILE.search(cell) and is_picture(without_number(cell.strip()))


def _names(count: int, place: int) -> list[str]:
    """Names for the columns of a text without a header, whose pictures are named at `place`."""
    if count == 2:
        return ["caption", "image"] if place else ["image", "caption"]
    return ["image" if number == place else f"column{number + 1}" for number in range(count)]


def head_of(records: Sequence[Mapping[str, Any]]) -> Head:
    """The same of JSON objects."""
    return Head(list(dict.fromkeys(name for record in records for name in record)), list(records))
