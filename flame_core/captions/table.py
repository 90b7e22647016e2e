"""The captions file of a shard: `data/captions/{train,val}/00000.parquet`, aligned with the shard's samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.errors import InputError
from flame_core.params import CaptionKind

MANIFEST = "manifest.json"  # of data/captions: the captioner of each kind, and the digests of every shard

SCHEMA = pa.schema(
    {
        "row": pa.int32(),  # of the sample in its shard
        "key": pa.string(),
        "kind": pa.string(),  # raw, short, long
        "text": pa.string(),
        "language": pa.string(),
        "provenance": pa.string(),  # where the text came from: source:<name>, metadata, rewrite:<model>, vlm:<model>
    }
)


@dataclass(frozen=True)
class Caption:
    """One row of a captions file."""

    row: int
    key: str
    kind: CaptionKind
    text: str
    language: str
    provenance: str


def write_captions(path: Path, captions: Iterable[Caption]) -> None:
    """Write a captions file; rows stay in the order given (samples in shard order; raw, short, long)."""
    table = pa.Table.from_pylist([asdict(caption) for caption in captions], schema=SCHEMA)
    pq.write_table(table, path, compression="zstd")


def read_captions(path: Path) -> list[Caption]:
    """The rows of a captions file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return [Caption(**row) for row in pq.ParquetFile(path).read().cast(SCHEMA).to_pylist()]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable captions file ({error}); run `flame caption` again") from None
