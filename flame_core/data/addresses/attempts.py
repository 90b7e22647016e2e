"""What became of each address: `attempts.parquet`, a row per address, sorted by key.

| reason | outcome | passes |
|---|---|---|
| `dns_temporary`, `timeout`, `reset`, `http_5xx`, `cut`, `rate_limited`, `robots_unreachable` | failed | yes |
| `forbidden` (401, 403) | failed | it is asked once more, in the last pass |
| `gone` (400, 404, 410), `legal` (451), `no_host`, `tls`, `redirects`, `http_status` | failed | no |
| `too_large`, `not_a_picture`, `image_...` | failed | no |
| `x_robots_tag`, `tdm_reservation`, `robots_txt`, `opt_out_list` | opted_out | no |
| `bad_address`, `address_refused`, `port_refused` | refused | no |
| `small`, `aspect`, `hash_changed` | dropped | no |
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

ATTEMPTS = "attempts.parquet"
TAR = "pictures.tar"
OPTED_OUT = "opt_out_list"  # the reason of what lists of opt-outs name
Outcome = Literal["ok", "failed", "opted_out", "refused", "dropped"]
PASSING = frozenset(
    {"dns_temporary", "timeout", "reset", "http_5xx", "cut", "rate_limited", "robots_unreachable"}
)  # tried again within a unit, in the last pass, and by --retry-failed
ASKED_AGAIN = PASSING | {"forbidden"}  # in the last pass and by --retry-failed

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "url": pa.string(),
        "host": pa.string(),
        "outcome": pa.string(),
        "reason": pa.string(),  # null if ok, unless `hash_changed` is kept
        "status": pa.int32(),  # of the last answer; null: there was none
        "tries": pa.int32(),
        "bytes": pa.int64(),  # received
        "media_type": pa.string(),
        "content_usage": pa.string(),  # the header of that name, as it came: IETF aipref is not settled
        "sha256_received": pa.string(),
        "sha256_stored": pa.string(),
        "width": pa.int32(),  # of the stored picture
        "height": pa.int32(),
        "offset": pa.int64(),  # of the picture in its tar
        "size": pa.int64(),
    }
)


@dataclass
class Attempt:
    """A row of `attempts.parquet`."""

    key: str
    url: str
    host: str | None = None
    outcome: Outcome = "failed"
    reason: str | None = None
    status: int | None = None
    tries: int = 0
    bytes: int | None = None
    media_type: str | None = None
    content_usage: str | None = None
    sha256_received: str | None = None
    sha256_stored: str | None = None
    width: int | None = None
    height: int | None = None
    offset: int | None = None
    size: int | None = None


def address_key(url: str) -> str:
    """The key of an address: of its characters as given, since servers differ in what they take for equal."""
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"urls/{digest[:2]}/{digest[2:24]}"
