"""A small project whose samples are forgotten, and where traces of them are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flame_core.data.shards import PictureReader, read_index
from flame_core.forgetting.forget import Report, forget
from flame_core.forgetting.requests import Requests, parse_requests
from flame_core.layout import Layout
from flame_core.params import Params

CAPTIONS = "a drawing that is numbered {} and nothing else"


def asked(*lines: str) -> Requests:
    return parse_requests(lines, "test")


def picture_of(layout: Layout, key: str) -> tuple[str, bytes]:
    """(split, stored bytes) of a sample."""
    row = next(row for row in read_index(layout.shards) if row.key == key)
    return row.split, PictureReader(layout.shards).jpeg(row)


def found_in(folder: Path, *needles: bytes) -> list[str]:
    """Files that hold one of these bytes; of parquet files also by their values."""
    hits = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if content[:4] == b"PAR1":
                content += repr(pq.ParquetFile(path).read().to_pylist()).encode()
            if any(needle in content for needle in needles):
                hits.append(path.relative_to(folder).as_posix())
    return hits


def run(params: Params, layout: Layout, *lines: str, **values: Any) -> Report:
    return forget(params, layout, asked(*lines), "a person asked", dry_run=values.get("dry_run", False))
