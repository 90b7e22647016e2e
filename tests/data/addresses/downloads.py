"""Downloads of lists of addresses, and what came of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flame_core.data.addresses.attempts import ATTEMPTS
from flame_core.data.addresses.crawl import Pace
from flame_core.data.sources.listing import read_pairs
from flame_core.data.sources.urls import Urls
from flame_core.params import UrlsSource
from flame_core.work import Unit, WorkCache
from tests.data.addresses.web import Web

QUICK = Pace(backoff=(0.02,), patience=8.0, look_again=0.02)


def write_list(path: Path, urls: list[str]) -> Path:
    """CC12M's form: address and caption, no header."""
    path.write_text("".join(f"{url}\tdrawing number {number}\n" for number, url in enumerate(urls)))
    return path


def params_of(web: Web, path: Path, **values: Any) -> UrlsSource:
    given = {
        "kind": "urls",
        "path": str(path),
        "columns": ["url", "caption"],
        "allow": [f"127.0.0.0/8:{web.port}"],
        "timeout_s": {"connect": 2, "read": 1, "total": 2},
        "max_bytes": 300_000,
        **values,
    }
    return UrlsSource.model_validate(given)


def download(web: Web, path: Path, work: Path, *, retry: bool = False, resolver: Any = None, **values: Any) -> Unit:
    source = Urls(params_of(web, path, **values), path, pace=QUICK, resolver=resolver)
    return source.download(WorkCache(work, "download", retry_failed=retry))


def rows_of(unit: Unit) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for row in pq.read_table(unit.file(ATTEMPTS)).to_pylist()}


def pictures_of(unit: Unit, folder: Path) -> dict[str, bytes]:
    """{caption: bytes of its picture}, read where a raw folder has them."""
    folder.mkdir(parents=True)
    for name in unit.names():
        (folder / name).parent.mkdir(exist_ok=True)
        os.link(unit.file(name), folder / name)
    pairs = read_pairs(folder, folder)
    return {pair.captions["en"][0]: pair.image.read() for pair in pairs if pair.image}


def contents(unit: Unit) -> dict[str, bytes]:
    return {name: unit.file(name).read_bytes() for name in unit.names()}
