"""What tests of `ingest` run, write and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.data.ledger import read_ledger
from flame_core.data.shards import read_shard, shard_names
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import download, ingest


def run_ingest(params: Params, layout: Layout) -> None:
    download.run(params, layout)
    ingest.run(params, layout)


def read_samples(layout: Layout) -> dict[str, dict[str, dict[str, Any]]]:
    """{split: {key: meta}} of all shards."""
    return {
        split: {
            sample.key: sample.meta
            for name in shard_names(layout.shards, split)
            for sample in read_shard(layout.shards / name)
        }
        for split in ("train", "val")
    }


def read_dropped(layout: Layout) -> dict[str, str]:
    return {entry.key: entry.reason for entry in read_ledger(layout.shards) if entry.outcome == "dropped"}


def failed_checks(layout: Layout) -> set[str]:
    return {check.name for check in gates.read(layout.shards) if not check.passed}


def read_units(layout: Layout) -> dict[str, int]:
    """{digest: when it was made} of the units in the work cache."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (layout.work / "ingest").glob("[!.]*/ledger.json")}


def write_pair(folder: Path, name: str, picture: bytes, **record: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(picture)
    (folder / f"{name}.json").write_text(json.dumps(record))
