"""What the pictures of a unit look like: a list of opt-outs may name a perceptual hash after they were fetched."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.addresses.attempts import ATTEMPTS, TAR
from flame_core.data.addresses.examine import looks
from flame_core.params import UrlsSource
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.work import Unit, UnitRecord, WorkCache

_HASHES = "hashes.parquet"
_SCHEMA = pa.schema({"key": pa.string(), "hash": pa.uint64()})


@dataclass(frozen=True)
class _Task:
    """A unit whose pictures are looked at; their hashes are kept in the work cache."""

    unit: Unit
    params: UrlsSource
    work: WorkCache


def named_by_looks(units: list[Unit], hashes: Set[int], params: UrlsSource, work: WorkCache) -> set[str]:
    """Keys of pictures that are here and have one of these perceptual hashes; without hashes, none is decoded."""
    if not hashes:
        return set()
    tasks = [_Task(unit, params, work) for unit in units]
    found: set[str] = set()
    for each in map_units(_hashed, tasks, settings().workers, "compare with opt-outs", "units"):
        table = pq.ParquetFile(each.file(_HASHES)).read()
        rows = zip(table.column("key").to_pylist(), table.column("hash").to_pylist(), strict=True)
        found.update(key for key, number in rows if number in hashes)
    return found


def _hashed(task: _Task) -> Unit:
    sizes = [task.params.max_side, task.params.max_pixels]
    inputs = {"kind": "hashes", "tar": task.unit.sha256[TAR], "params": sizes}
    return task.work.get(inputs, partial(_write, task))


def _write(task: _Task, folder: Path) -> UnitRecord:
    attempts = pq.ParquetFile(task.unit.file(ATTEMPTS)).read(["key", "outcome", "offset", "size"]).to_pylist()
    found = []
    with task.unit.file(TAR).open("rb") as tar:
        for row in attempts:
            if row["outcome"] == "ok":
                tar.seek(row["offset"])
                found.append({"key": row["key"], "hash": looks(tar.read(row["size"]), task.params)})
    pq.write_table(pa.Table.from_pylist(found, schema=_SCHEMA), folder / _HASHES)
    return UnitRecord({"pictures": len(found)})
