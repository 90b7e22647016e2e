"""ingest: `data/raw/` -> `data/shards/`: shards, an index, a ledger and checks.

    flame ingest

Three steps: scan chunks of pairs (`data/scan.py`), select the samples (`data/selection.py`), write the shards
(`data/build.py`). Scans and shards are units of the work cache, computed by `FLAME_WORKERS` processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core import gates, reporting
from flame_core.data import chunks
from flame_core.data.build import ROWS, SCHEMA, SHARD, BuiltShard, SampleTask, ScannedPair, ShardTask, build
from flame_core.data.contact_sheet import contact_sheet
from flame_core.data.forgotten import FORGOTTEN, read_forgotten
from flame_core.data.ingest_checks import ingest_checks
from flame_core.data.ledger import LEDGER, LedgerEntry, address_entries, forgotten_entries, ledger_table, source_entries
from flame_core.data.pair_filters import FILTERED
from flame_core.data.scan import Scanned, ScanTask, scan
from flame_core.data.selection import PLACEHOLDER, Chosen, Selection, reasons, select
from flame_core.data.shards import CHOSEN, INDEX, INDEX_SCHEMA, SPLITS, Split
from flame_core.data.sources import open_source
from flame_core.data.sources.bucket_shards import BucketShards
from flame_core.data.sources.listing import (
    MANIFEST,
    PAIRS,
    SOURCE,
    check_manifest,
    left_out,
    read_keys,
    read_source,
)
from flame_core.digest import json_bytes
from flame_core.errors import ComputationError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.verification import verify
from flame_core.work import WorkCache, gather

_SCAN_PAIRS = 64  # pairs per scan, on average: seconds of work, so a killed run loses little


def run(params: Params, layout: Layout, *, retry_failed: bool = False) -> None:
    """Write `data/shards/`.

    Raises:
        InputError: a source was not downloaded, or has changed since.
        GateError: the download recorded a failed check.
        ComputationError: some pairs are neither kept nor in the ledger.
        ResourceError: the disk is full.
    """
    gates.require(layout.raw)
    verify({layout.raw: [f"*/{PAIRS}", f"*/{SOURCE}", f"*/{MANIFEST}"]})  # the list has the pictures' digests
    work = WorkCache(layout.work, "ingest", retry_failed=retry_failed)
    tasks: list[ScanTask] = []
    beside: list[LedgerEntry] = []
    unfetched: list[LedgerEntry] = []
    gone: Counter[str] = Counter()
    forgotten = read_forgotten(layout.opt_out)
    for name, source in sorted(params.sources.items()):
        raw = layout.raw / name
        opened = open_source(source, layout, name)
        if isinstance(opened, BucketShards):
            opened.stage_again(raw)
        pictures = opened.pictures(raw)
        about = read_source(raw)
        beside += source_entries(name, *left_out(about))
        unfetched += address_entries(name, about)
        check_manifest(raw, pictures)
        gone[name] = about.get(FORGOTTEN, 0)
        own = forgotten.of(name)
        rows = chunks.cut(read_keys(raw), _SCAN_PAIRS)
        tasks += [ScanTask(name, raw, pictures, start, stop, params.ingest, work, own) for start, stop in rows]
    scans = list(map_units(scan, tasks, settings().workers, "scan pictures", "chunk"))
    for scanned in scans:
        gone[scanned.source] += scanned.forgotten
    for name, number in sorted(gone.items()):
        unfetched += forgotten_entries(name, number)
    selection = select(scans, params.ingest, params.evaluate.train_language)
    shard_samples = params.ingest.sizes(sum(scan.pairs for scan in scans)).shard_samples
    bounds: dict[Split, list[tuple[int, int]]] = {
        split: chunks.cut([sample.key for sample in selection.samples[split]], shard_samples) for split in SPLITS
    }
    shard_tasks = [
        ShardTask(tuple(_sample_task(sample, scans) for sample in selection.samples[split][start:stop]), work)
        for split in SPLITS
        for start, stop in bounds[split]
    ]
    shards = list(map_units(build, shard_tasks, settings().workers, "write shards", "shard"))
    _gather(params, layout, scans, selection, _by_split(shards, bounds), beside, unfetched)


def _sample_task(sample: Chosen, scans: Sequence[Scanned]) -> SampleTask:
    pairs = (ScannedPair(scans[p.scan].folder, p.row, scans[p.scan].pictures) for p in sample.pairs)
    return SampleTask(sample.key, tuple(pairs), sample.without)


def _by_split(shards: list[BuiltShard], bounds: dict[Split, list[tuple[int, int]]]) -> dict[Split, list[BuiltShard]]:
    rest = iter(shards)
    return {split: [next(rest) for _ in bounds[split]] for split in SPLITS}


def _gather(
    params: Params,
    layout: Layout,
    scans: list[Scanned],
    selection: Selection,
    shards: dict[Split, list[BuiltShard]],
    beside: list[LedgerEntry],
    unfetched: list[LedgerEntry],
) -> None:
    rows: dict[Split, pa.Table] = {split: _rows(shards[split]) for split in SPLITS}
    files = {
        f"{split}/{number:05d}.tar": shard.folder / SHARD
        for split in SPLITS
        for number, shard in enumerate(shards[split])
    }
    entries = [*selection.entries, *beside, *unfetched]
    built = [shard for split in SPLITS for shard in shards[split]]
    listed = sum(scan.pairs for scan in scans)
    kept = sum(len(sample.pairs) for split in SPLITS for sample in selection.samples[split])
    dropped = sum(entry.outcome == "dropped" for entry in selection.entries)
    if listed != kept + dropped:
        raise ComputationError(f"{listed} pairs are listed, {kept} kept and {dropped} dropped: some are lost")
    unwanted = (FORGOTTEN, PLACEHOLDER)
    filtered = sum(entry.reason.startswith(FILTERED) or entry.reason in unwanted for entry in selection.entries)
    checks = ingest_checks(
        rows,
        selection.looks,
        listed=listed - filtered,  # what is not wanted is not lost
        kept=kept,
        undecodable=[key for shard in built for key in shard.undecodable],
        damaged_files=[entry.key for entry in beside if entry.outcome == "dropped"],
        params=params.ingest,
    )
    texts = {
        INDEX: parquet_bytes(_index(rows, shards)),
        LEDGER: parquet_bytes(ledger_table(entries)),
        gates.CHECKS: gates.to_bytes(checks),
    }
    chosen = {name: getattr(params.ingest.sizes(listed), name) for name in params.ingest.automatic}
    if chosen:
        texts[CHOSEN] = json_bytes({"pairs": listed, **chosen})
    sha256 = {
        f"{split}/{number:05d}.tar": shard.sha256 for split in SPLITS for number, shard in enumerate(shards[split])
    }
    gather(layout.shards, layout.state, files, texts, sha256)
    computed = [unit.computed for unit in (*scans, *built)]
    reporting.facts(
        "Shards",
        {
            "pairs": listed,
            **{f"{split} samples": f"{len(rows[split]):,} in {len(shards[split]):,} shards" for split in SPLITS},
            **{f"without: {reason}": number for reason, number in reasons(entries).items()},
            **{f"ingest.{name}": f"{value:g}, chosen for {listed:,} pairs" for name, value in chosen.items()},
            **{f"captions: {reason}": number for reason, number in sorted(_filtered_captions(scans).items())},
            "captions cut": sum(scan.cut_captions for scan in scans),
            "units": f"{sum(computed):,} computed, {len(computed) - sum(computed):,} found",
        },
    )
    for split in SPLITS:
        if rows[split].num_rows:
            reporting.picture(f"{split} pictures", partial(contact_sheet, layout.shards, split), "jpeg")
    gates.warn(checks)


def _filtered_captions(scans: Sequence[Scanned]) -> Counter[str]:
    """Captions that `ingest.filters` left out, by reason."""
    counts: Counter[str] = Counter()
    for scanned in scans:
        counts.update(scanned.filtered)
    return counts


def _rows(shards: list[BuiltShard]) -> pa.Table:
    return pa.concat_tables([SCHEMA.empty_table(), *(pq.ParquetFile(shard.folder / ROWS).read() for shard in shards)])


def _index(rows: dict[Split, pa.Table], shards: dict[Split, list[BuiltShard]]) -> pa.Table:
    tables = []
    for split in SPLITS:
        sizes = [shard.samples for shard in shards[split]]
        names = np.repeat([f"{split}/{number:05d}.tar" for number in range(len(sizes))], sizes)
        place = np.concatenate([np.arange(size) for size in sizes]) if sizes else []
        added = {"split": [split] * len(rows[split]), "shard": names.tolist(), "row": place}
        arrays = [
            pa.chunked_array([pa.array(added[field.name], field.type)])
            if field.name in added
            else rows[split].column(field.name)
            for field in INDEX_SCHEMA
        ]
        tables.append(pa.table(arrays, schema=INDEX_SCHEMA))
    return pa.concat_tables(tables)
