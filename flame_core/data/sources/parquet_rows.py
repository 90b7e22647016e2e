"""Reads rows of a parquet table, batch by batch, as plain Python values.

Only the wanted columns are read. Text may be stored as strings, as bytes in UTF-8, or in a dictionary; a column of
dates or decimals is read as text. A cell that cannot be read (bytes that are not UTF-8, a text of more than `LONGEST`
characters) drops its row; damaged pages, or a column of a type that has no text form, refuse the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources.table import LONGEST, Row, Table, text_size

_ROWS, _PICTURES = 1024, 64  # rows per batch (all in memory), without and with pictures
_DEEPEST = 16  # levels of nested types


class _Unreadable:
    """Placeholder for a cell that cannot be read."""

    def __init__(self, why: str) -> None:
        self.why = why


def parquet_rows(table: Table) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of a .parquet file."""
    try:
        names, texts = _columns(table)
        with pq.ParquetFile(table.path, read_dictionary=texts, page_checksum_verification=True) as file:
            number = 0
            rows = _ROWS if table.picture_column in (None, *texts) else _PICTURES
            for batch in file.iter_batches(batch_size=rows, columns=names):
                columns = {name: _cells(table, name, batch.column(name)) for name in names}
                for i in range(batch.num_rows):
                    number += 1
                    row = {name: cells[i] for name, cells in columns.items()}
                    bad = [f"{name!r} {cell.why}" for name, cell in row.items() if isinstance(cell, _Unreadable)]
                    if bad:
                        table.damaged(f"row {number}", f"cannot be used: {' and '.join(bad)}")
                    else:
                        yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError) as error:
        table.refuse(f"is not a readable parquet file: {error}")


def _columns(table: Table) -> tuple[list[str], list[str]]:
    """The wanted columns that exist, and the text columns among them, to read as dictionaries: values may repeat."""
    with pq.ParquetFile(table.path) as file:
        parquet = file.metadata.schema
        if any(parquet.column(i).max_definition_level > 2 * _DEEPEST for i in range(len(parquet))):
            table.refuse("has columns that are nested too deeply")
        schema = file.schema_arrow
        table.require(schema.names)
        names = [name for name in table.wanted if name in schema.names]
        for name in names:
            if schema.names.count(name) > 1:
                table.refuse(f"has {schema.names.count(name)} columns {name!r}; rename those that are not meant")
        texts = [name for name in names if _is_text(schema.field(name).type)]
        if table.text_column is not None and not _may_be_text(kind := schema.field(table.text_column).type):
            table.refuse(f"holds {kind} in the column {table.text_column!r}; it must be text")
        if table.picture_column is None:
            return names, texts
        if _holds_bytes(schema.field(table.picture_column).type):
            texts.remove(table.picture_column)  # a dictionary has no use for pictures
    field = schema.field(table.picture_column)
    if not _names_pictures(field.type):
        table.refuse(
            f"holds {field.type} in the column {field.name!r}; it must be names of files, the bytes of pictures, or "
            "{bytes, path}"
        )
    return names, texts


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _names_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return {"bytes", "path"} & {field.name for field in kind} != set()
    others = (pa.types.is_large_binary, pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_null)
    return _is_text(kind) or any(of(kind) for of in others)


def _may_be_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    others = (pa.types.is_large_string, pa.types.is_large_binary, pa.types.is_string_view, pa.types.is_binary_view)
    return _is_text(kind) or any(of(kind) for of in (*others, pa.types.is_null))


def _cells(table: Table, name: str, column: pa.Array) -> list[Any]:
    """The values of a column, with an `_Unreadable` for each cell that cannot be read."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        used = column.indices.unique().drop_null()
        values = dict(zip(used.to_pylist(), _cells(table, name, column.dictionary.take(used)), strict=True))
        return [None if index is None else values[index] for index in column.indices.to_pylist()]
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        try:
            column = column.cast(pa.string())
        except pa.ArrowException as error:
            table.refuse(f"holds {column.type} in the column {name!r}, which cannot be read as text: {error}")
    binary = name == table.picture_column
    try:
        values = column.to_pylist(maps_as_pydicts="strict")
    except (ValueError, KeyError, OverflowError):  # UnicodeDecodeError too
        values = [_cell(cell) for cell in column]
    return values if binary else [_text(value) for value in values]


def _cell(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py(maps_as_pydicts="strict")
    except UnicodeDecodeError:
        return _Unreadable("is not UTF-8")
    except (ValueError, KeyError, OverflowError) as error:
        return _Unreadable(f"cannot be read: {error}")


def _text(value: Any) -> Any:
    """`value` with bytes decoded to text."""
    if isinstance(value, _Unreadable):
        return value
    try:
        plain = _decoded(value)
    except UnicodeDecodeError:
        return _Unreadable("holds bytes that are not UTF-8")
    size = text_size(plain)
    return _Unreadable(f"has {size:,} characters") if size > LONGEST else plain


def _decoded(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("utf-8")
        case list():
            return [_decoded(item) for item in value]
        case dict():
            return {name: _decoded(item) for name, item in value.items()}
        case _:
            return value
