"""Codes of a shard's pictures: `data/codes/train/00000.parquet`, a row per sample, found by key and never by place.

key     text
codes   the code of each patch, row by row of the picture's grid, L numbers below 65,536
cosine  mean cosine of the patches with their codes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.errors import InputError

CODES = "codes.parquet"  # within a unit of work


@dataclass(frozen=True)
class Coded:
    """Keys [n], codes [n, L] in uint16 and mean cosines [n] in float32."""

    keys: list[str]
    codes: np.ndarray
    cosine: np.ndarray


def write_codes(path: Path, found: Coded) -> None:
    """Write the codes of a shard."""
    patches = found.codes.shape[1]
    codes = pa.FixedSizeListArray.from_arrays(pa.array(found.codes.ravel(), pa.uint16()), patches)
    columns = {"key": pa.array(found.keys, pa.string()), "codes": codes, "cosine": pa.array(found.cosine, pa.float32())}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_codes(path: Path) -> Coded:
    """The codes of a shard.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        table = pq.ParquetFile(path).read().combine_chunks()
        column = table.column("codes").chunk(0) if len(table) else pa.array([], pa.list_(pa.uint16(), 1))
        patches = column.type.list_size
        codes = column.flatten().to_numpy().reshape(-1, patches)
        return Coded(table.column("key").to_pylist(), codes, table.column("cosine").to_numpy())
    except (OSError, ValueError, KeyError, AttributeError, IndexError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable file of codes ({error}); run `flame codes` again") from None


def code_file(shard: str) -> str:
    """train/00000.parquet of train/00000.tar."""
    return Path(shard).with_suffix(".parquet").as_posix()


def keys_below(folder: Path) -> set[str]:
    """The keys of all parquet files in `train/` of an earlier out; none if only its small files were kept.

    Raises:
        InputError: a file is damaged.
    """
    found: set[str] = set()
    for path in sorted((folder / "train").glob("*.parquet")):
        try:
            found.update(pq.ParquetFile(path).read(columns=["key"]).column("key").to_pylist())
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise InputError(f"{path}: its keys cannot be read ({error}); name an undamaged folder") from None
    return found
