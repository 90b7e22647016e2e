"""Writes the columns that a source keeps for `ingest.filters`: `columns.parquet`, a row of JSON per pair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources.listing import GROUP
from flame_core.files.row_groups import in_groups

_SCHEMA = pa.schema({"key": pa.string(), "columns": pa.string()})


class KeptColumns:
    """Writes `columns.parquet`, row by row; nothing without a path."""

    def __init__(self, path: Path | None) -> None:
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd") if path else None
        self._rows: list[dict[str, str]] = []

    def add(self, key: str, records: Sequence[dict[str, Any]]) -> None:
        if self._writer:
            values: dict[str, Any] = {}
            for record in records:
                values = {**(record.get("columns") or {}), **{k: v for k, v in values.items() if v is not None}}
            self._rows.append({"key": key, "columns": json.dumps(values, sort_keys=True)})
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


def join_columns(path: Path, parts: Iterable[Path]) -> None:
    """Write the rows of several such files to one, as if they had been added to it one by one."""
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        table = _SCHEMA.empty_table()
        for table in in_groups((pq.ParquetFile(part).read() for part in parts), GROUP):
            writer.write_table(table)
        if len(table) % GROUP == 0:  # as a file ends that is closed
            writer.write_table(_SCHEMA.empty_table())
