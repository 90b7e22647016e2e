"""The ledger of ingest, `ledger.parquet`: what happened to every pair that is not a sample as its source gave it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

LEDGER = "ledger.parquet"
Outcome = Literal["dropped", "merged", "changed"]
SCHEMA = pa.schema(
    {
        "key": pa.string(),  # of the sample; the file's name where a whole file of a source could not be read
        "source": pa.string(),
        "outcome": pa.string(),  # dropped, merged (its captions went to another sample), changed
        "reason": pa.string(),  # counted
        "detail": pa.string(),  # for people
    }
)


@dataclass(frozen=True, order=True)
class Entry:
    """A row of the ledger."""

    source: str
    key: str
    outcome: Outcome
    reason: str
    detail: str


def ledger_table(entries: Iterable[Entry]) -> pa.Table:
    """The ledger's rows, sorted."""
    return pa.Table.from_pylist([asdict(entry) for entry in sorted(entries)], schema=SCHEMA)


def read_ledger(shards: Path) -> list[Entry]:
    """The rows of the ledger in a folder of shards."""
    return [Entry(**row) for row in pq.ParquetFile(shards / LEDGER).read().to_pylist()]
