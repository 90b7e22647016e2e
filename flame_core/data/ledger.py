"""The ledger of ingest, `ledger.parquet`: what happened to every pair that did not become a sample unchanged.

It also lists files, members and rows that a source saw but did not use. So every listed pair is either a sample, merged
into a sample, or dropped by a row of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.data.forgotten import FORGOTTEN
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import UnusedGroup
from flame_core.data.sources.keys import safe_key
from flame_core.errors import InputError
from flame_core.layout import OPT_OUT

LEDGER = "ledger.parquet"
NEAR_DUPLICATE = "near_duplicate"  # the reason of a pair whose captions went to a sample that looks like it
Outcome = Literal["dropped", "merged", "changed", "unused"]
SCHEMA = pa.schema(
    {
        "key": pa.string(),  # of the pair; for files without a pair, the name of the (first) file
        "source": pa.string(),
        "outcome": pa.string(),  # dropped, merged (its captions went to another sample), changed, unused (no pair)
        "reason": pa.string(),  # for counting
        "detail": pa.string(),  # for people
    }
)
_COUNT = pa.field("count", pa.int64())


@dataclass(frozen=True, order=True, slots=True)
class LedgerEntry:
    """A row of the ledger: what became of a pair, a file, a member or a row that is not a sample as it came."""

    source: str
    key: str
    outcome: Outcome
    reason: str
    detail: str
    count: int = 1  # how many pairs, files, members or rows it stands for


def ledger_table(entries: Iterable[LedgerEntry]) -> pa.Table:
    """The ledger's rows, sorted; with a column `count` if any row stands for several things."""
    rows = [asdict(entry) for entry in sorted(entries)]
    several = any(row["count"] != 1 for row in rows)
    return pa.Table.from_pylist(rows, schema=SCHEMA.append(_COUNT) if several else SCHEMA)


def read_ledger(shards: Path) -> list[LedgerEntry]:
    """The rows of the ledger in a folder of shards.

    Raises:
        InputError: the ledger is missing or damaged.
    """
    path = shards / LEDGER
    try:
        return [LedgerEntry(**row) for row in pq.ParquetFile(path).read().to_pylist()]
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable ledger ({error}); run `flame ingest` again") from None


def lost_pairs(shards: Path, keys: pa.ChunkedArray) -> dict[str, str]:
    """{key: reason} of those pairs among `keys` that did not become a sample: dropped, or merged into another.

    Raises:
        InputError: the ledger is missing or damaged.
    """
    path = shards / LEDGER
    try:
        table = pq.ParquetFile(path).read(columns=["key", "outcome", "reason"])
        lost = pc.field("outcome").isin(["dropped", "merged"])
        table = table.filter(lost & pc.field("key").cast(keys.type).isin(keys))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable ledger ({error}); run `flame ingest` again") from None
    return dict(zip(table.column("key").to_pylist(), table.column("reason").to_pylist(), strict=True))


def absorbed_by(key: str) -> str:
    """The detail of a row `NEAR_DUPLICATE`; `absorbing_key` reads it."""
    return f"looks like {key}, which has its captions now"


def absorbing_key(detail: str) -> str:
    """The key in a detail that `absorbed_by` wrote."""
    return detail.removeprefix("looks like ").partition(",")[0]


def address_entries(source: str, record: Mapping[str, Any]) -> list[LedgerEntry]:
    """The rows for addresses of a list that gave no picture, one per reason; `attempts.parquet` has each of them."""
    return [
        LedgerEntry(
            source,
            safe_key(f"{source}/{row['first']}"),
            "dropped",
            f"address_{row['outcome']}_{row['reason']}",
            f"{row['count']:,} addresses, of which this is the first; {source}/attempts.parquet has all",
            row["count"],
        )
        for row in record.get("outcomes", [])
        if row["outcome"] != "ok"
    ]


def forgotten_entries(source: str, number: int) -> list[LedgerEntry]:
    """The row for pairs that were forgotten, without their keys; none for none."""
    detail = f"{number:,} pairs that `flame forget` was asked to forget"
    return [LedgerEntry(source, OPT_OUT, "dropped", FORGOTTEN, detail, number)] if number else []


def source_entries(source: str, problems: Iterable[Problem], unused: Iterable[UnusedGroup]) -> list[LedgerEntry]:
    """The rows for what `source` saw but did not list as a pair."""
    return [
        *(LedgerEntry(source, row.file, "dropped", row.reason, row.detail, row.count) for row in problems),
        *(
            LedgerEntry(source, group.examples[0], "unused", group.reason, group.detail, group.count)
            for group in unused
        ),
    ]
