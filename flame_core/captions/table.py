"""The captions file of a shard: `data/captions/{train,val}/00000.parquet`, aligned with the shard's samples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


@dataclass(frozen=True)
class ShardCaptions:
    """Some captions of a shard: the row of the sample [N] of each, and the texts."""

    rows: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def write_captions(path: Path, captions: Iterable[Caption]) -> None:
    """Write a captions file; rows stay in the order given (samples in shard order; raw, short, long)."""
    table = pa.Table.from_pylist([asdict(caption) for caption in captions], schema=SCHEMA)
    pq.write_table(table, path, compression="zstd")


def captions_file(captions: Path, shard: str) -> Path:
    """The captions file of a shard (`train/00000.tar`) in a folder of captions."""
    return captions / Path(shard).with_suffix(".parquet")


def read_captions(path: Path) -> list[Caption]:
    """The rows of a captions file.

    Raises:
        InputError: the file is missing or damaged.
    """
    with _readable(path):
        return [Caption(**row) for row in pq.ParquetFile(path).read().cast(SCHEMA).to_pylist()]


def read_columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    """Some columns of a captions file, in the order of `names`; without an object per row as of `read_captions`.

    Raises:
        InputError: the file is missing or damaged.
    """
    with _readable(path):
        table = pq.ParquetFile(path).read(list(names)).cast(pa.schema([SCHEMA.field(name) for name in names]))
        return [column.to_pylist() for column in table.columns]


def read_shard_captions(path: Path, kinds: Sequence[str], language: str | None = None) -> ShardCaptions:
    """The captions of some kinds in a captions file, in a language or in all, in the file's order.

    Raises:
        InputError: the file is missing or damaged.
    """
    wanted = pc.field("kind").isin(list(kinds))
    if language is not None:
        wanted &= pc.field("language") == language
    with _readable(path):
        table = pq.read_table(path, columns=["row", "text"], filters=wanted)
        return ShardCaptions(table.column("row").to_numpy(), table.column("text").to_pylist())


def first_captions(path: Path, kind: CaptionKind, language: str | None = None) -> dict[int, str]:
    """{row in the shard: its first caption of the kind, in the language or in any}.

    Raises:
        InputError: the file is missing or damaged.
    """
    captions = read_shard_captions(path, [kind], language)
    found: dict[int, str] = {}
    for row, text in zip(captions.rows.tolist(), captions.texts, strict=True):
        found.setdefault(row, text)
    return found


def captions_at(
    places: Collection[tuple[str, int]], captions: Path, kind: CaptionKind, language: str | None = None
) -> dict[tuple[str, int], str]:
    """The first caption of each sample of the kind and language; a raw one if there is none of the kind.

    Args:
        places: the samples, each as (shard, row in it).
        captions: the folder of captions.
        kind: of the captions.
        language: of the captions; any by default.
    """
    by_shard: dict[str, list[int]] = {}
    for shard, row in places:
        by_shard.setdefault(shard, []).append(row)
    found: dict[tuple[str, int], str] = {}
    for shard, rows in sorted(by_shard.items()):
        path = captions_file(captions, shard)
        texts = first_captions(path, "raw", language)
        if kind != "raw":
            texts |= first_captions(path, kind, language)
        found |= {(shard, row): texts[row] for row in rows if row in texts}
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable captions file ({error}); run `flame caption` again") from None
