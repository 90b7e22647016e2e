"""Columns that a source keeps (`keep_columns`): `columns.parquet`, a row of JSON per pair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources.listing import GROUP, KEPT_COLUMNS, PAIRS
from flame_core.errors import InputError
from flame_core.files.row_groups import in_groups

_SCHEMA = pa.schema({"key": pa.string(), "columns": pa.string()})
Records = Sequence[Mapping[str, Any]]  # of a pair


class KeptColumns:
    """Writes `columns.parquet` in a folder, row by row; nothing if no columns are kept."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._names = names
        path = folder / KEPT_COLUMNS
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd") if names else None
        self._rows: list[dict[str, str]] = []

    def __enter__(self) -> KeptColumns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, key: str, records: Records) -> None:
        """Add the row of a pair. Of several records, the first that has a value counts."""
        if self._writer:
            values = {name: next(_values(records, name), None) for name in self._names} if records else {}
            self._rows.append({"key": key, "columns": _as_json(values)})
            if len(self._rows) == GROUP:
                self._flush()

    def _flush(self) -> None:
        assert self._writer is not None
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
        self._rows = []

    def close(self) -> None:
        if self._writer:
            self._flush()
            self._writer.close()


def _as_json(values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, sort_keys=True)
    except TypeError:  # dates and decimals in the lists and structs of a parquet file
        return json.dumps(_with_texts(values), sort_keys=True)


def _with_texts(value: Any) -> Any:
    """`value` with texts in place of what JSON cannot hold."""
    match value:
        case dict():
            return {str(name): _with_texts(item) for name, item in value.items()}
        case list() | tuple():
            return [_with_texts(item) for item in value]
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)


def _values(records: Records, name: str) -> Iterator[Any]:
    return (value for record in records if (value := record.get(name)) is not None)


def read_column(raw: Path, name: str) -> Iterator[tuple[str, str | None, Any]]:
    """(key, sha256 of the picture, value) of each pair that a source lists in `raw`; None where it has none.

    Raises:
        InputError: the columns or the list are damaged, do not fit together, or were written without this column.
    """
    path = raw / KEPT_COLUMNS
    try:
        with pq.ParquetFile(path) as file, pq.ParquetFile(raw / PAIRS) as pairs:
            for row, pair in zip(_rows(file), _rows(pairs, ["key", "sha256"]), strict=True):
                values = json.loads(row["columns"])
                if row["key"] != pair["key"]:
                    raise ValueError(f"it has {row['key']} where {PAIRS} has {pair['key']}")
                if values and name not in values:
                    has = ", ".join(sorted(values))
                    raise InputError(f"{path} has {has} and not {name!r}: run `flame download` first")
                yield row["key"], pair["sha256"], values.get(name)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged ({error}); run `flame download` again") from None


def _rows(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    return (row for batch in file.iter_batches(GROUP, columns=columns) for row in batch.to_pylist())


def join_columns(folder: Path, parts: Iterable[Path]) -> None:
    """Write the rows of several folders to one, as if they had been added to it one by one."""
    with pq.ParquetWriter(folder / KEPT_COLUMNS, _SCHEMA, compression="zstd") as writer:
        table = _SCHEMA.empty_table()
        for table in in_groups((pq.ParquetFile(part / KEPT_COLUMNS).read() for part in parts), GROUP):
            writer.write_table(table)
        if len(table) % GROUP == 0:  # as a file ends that is closed
            writer.write_table(_SCHEMA.empty_table())
