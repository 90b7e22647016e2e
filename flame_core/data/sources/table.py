"""Rows of a table of captions: `.csv`, `.jsonl` or `.parquet`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources import Problem
from flame_core.data.sources.record import json_object
from flame_core.errors import InputError

_LONGEST_FIELD = 1 << 27  # characters in a field of a .csv


def read_table(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of a .csv, .jsonl or .parquet table; rows that cannot be read become `problems`.

    Raises:
        InputError: the file is of another kind, or damaged as a whole.
    """
    match path.suffix.lower():
        case ".csv":
            yield from enumerate(_csv_rows(path), start=1)
        case ".jsonl":
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                for number, line in enumerate(file, start=1):
                    if not line.strip():
                        continue
                    if (record := json_object(line)) is None:
                        problems.append(Problem(path.name, "damaged_row", f"line {number} is not a JSON object"))
                    else:
                        yield number, record
        case ".parquet":
            try:
                with pq.ParquetFile(path) as file:
                    rows = (row for batch in file.iter_batches() for row in batch.to_pylist(maps_as_pydicts="lossy"))
                    yield from enumerate(rows, start=1)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{path} is not a readable parquet file: {error}") from None
        case suffix:
            raise InputError(f"{path}: a table must be .csv, .jsonl or .parquet, not {suffix or 'without a suffix'}")


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield from csv.DictReader(file)
    except csv.Error as error:
        raise InputError(f"{path} is not a readable .csv file: {error}") from None
    finally:
        csv.field_size_limit(limit)
