"""Copies a fetched file without samples that are forgotten: a tar without their members, a table without their rows."""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.hub.rows import PLACE, ROWS, read_place
from flame_core.data.sources import ImageRef
from flame_core.data.sources.picture_file import PICTURE_FILE, PictureFile
from flame_core.errors import InputError


def copy_members(source: Path, target: Path, gone: Collection[str], others: Collection[str]) -> None:
    """Copy a tar byte by byte, except the members of the samples `gone`; `others` are the keys of all other samples.

    A member belongs to the longest key that its name begins with: `22.10.jpg` to `22.10`, if there is such a sample.

    Raises:
        InputError: the tar is damaged.
    """
    known = sorted({*gone, *others}, key=len, reverse=True)
    try:
        with tarfile.open(source, "r:") as tar, source.open("rb") as read, target.open("wb") as write:
            for member in tar:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                name = member.name.removeprefix("./")
                if next((key for key in known if name.startswith(f"{key}.")), None) not in gone:
                    read.seek(member.offset)
                    _copy(read, write, end - member.offset)
            write.write(bytes(2 * tarfile.BLOCKSIZE))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{source}: a forgotten sample cannot be taken out of it ({error})") from None


def _copy(read: BinaryIO, write: BinaryIO, size: int) -> None:
    while size:
        block = read.read(min(size, 1 << 20))
        if not block:
            raise EOFError("it ends within a member")
        write.write(block)
        size -= len(block)


def copy_rows(source: Path, folder: Path, numbers: Collection[int]) -> int:
    """Copy the rows and pictures of a table that was taken apart; some rows become empty. Returns their number."""
    table = pq.read_table(source / ROWS)
    pictures, places = PictureFile(folder), list[str | None]()
    for number, place in enumerate(table.column(PLACE).to_pylist()):
        image = None if number in numbers else read_place(source / PICTURE_FILE, place)
        if isinstance(image, ImageRef):
            image = pictures.keep(image.read())
            places.append(f"{image.offset}:{image.size}:{image.sha256}")
        else:
            places.append(image)
    rest = table.take(pa.array([None if number in numbers else number for number in range(len(table))], pa.int64()))
    index = table.column_names.index(PLACE)
    pq.write_table(rest.set_column(index, PLACE, pa.array(places, pa.string())), folder / ROWS, compression="zstd")
    return len(table)
