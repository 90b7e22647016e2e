"""Takes a parquet table with pictures apart: their bytes into one file, all other columns into a smaller table.

A parquet page is compressed, so its pictures have no place on disk. Here they get one. The other columns are kept as
they are, so other params for captions fetch nothing again. The column `PLACE` says where a row's picture is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources import ImageRef
from flame_core.data.sources.picture_file import PictureFile
from flame_core.errors import InputError

ROWS = "rows.parquet"
PLACE = "flame picture"  # offset:size:sha256, or the name that the table has instead of bytes
_BATCH = 64  # rows with pictures in memory


def take_apart(table: Path, name: str, image_column: str, folder: Path) -> int:
    """Write the pictures and the rows of a table to `folder`; returns the number of rows.

    Args:
        table: the parquet file.
        name: what to call it in errors.
        image_column: the column with bytes, or {bytes, path}.
        folder: of the results.

    Raises:
        InputError: it is no parquet file, or has no such column with pictures.
    """
    pictures = PictureFile(folder)
    count = 0
    try:
        with pq.ParquetFile(table, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            _require(schema, name, image_column)
            others = schema.remove(schema.get_field_index(image_column)).remove_metadata()
            kept = others.append(pa.field(PLACE, pa.string()))
            with pq.ParquetWriter(folder / ROWS, kept, compression="zstd") as writer:
                for batch in file.iter_batches(batch_size=_BATCH):
                    places = [_place(value, pictures) for value in _values(batch.column(image_column))]
                    columns = [batch.column(column) for column in others.names]
                    writer.write_batch(pa.record_batch([*columns, pa.array(places, pa.string())], schema=kept))
                    count += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{name} is not a readable parquet file: {str(error)[:200]}") from None
    return count


def read_place(folder: Path, place: str | None) -> ImageRef | str | None:
    """The picture of a row whose pictures are in `folder`; without one, the name that the table has, if any."""
    parts = (place or "").split(":")
    if len(parts) == 3 and parts[0].isdecimal() and parts[1].isdecimal() and len(parts[2]) == 64:
        return ImageRef(folder, int(parts[0]), int(parts[1]), parts[2])
    return place or None


def _require(schema: pa.Schema, name: str, column: str) -> None:
    found = schema.get_all_field_indices(column)
    has = ", ".join(schema.names[:30])
    if len(found) != 1:
        raise InputError(
            f"{name} has {len(found) or 'no'} column{'s' * (len(found) > 1)} {column!r}; name the one with pictures as "
            f"`image_column`: it has {has}"
        )
    kind = schema.field(found[0]).type
    plain = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if pa.types.is_struct(plain) and {"bytes", "path"} & {field.name for field in plain}:
        return
    if not any(of(plain) for of in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)):
        raise InputError(
            f"{name} holds {kind} in the column {column!r}; `image_column` must hold the bytes of pictures, or "
            f"{{bytes, path}}. Its columns are {has}"
        )


def _values(column: pa.Array) -> Iterator[Any]:
    yield from (column.storage if isinstance(column, pa.ExtensionArray) else column).to_pylist()


def _place(value: Any, pictures: PictureFile) -> str | None:
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if not content:
        return str(path) if path else None
    image = pictures.keep(content)
    return f"{image.offset}:{image.size}:{image.sha256}"
