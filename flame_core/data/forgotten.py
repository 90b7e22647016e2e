"""What must never be used again: `opt_out.parquet` of the project, written by `flame forget` and tracked by git.

One row per forgotten sample, or per request that named nothing yet. A row has what identifies the sample wherever it
comes up again: its key, sha256 of the picture as received and as stored, pHash if that was asked for, and salted
hashes of its addresses. It has neither captions nor addresses. `download` does not list such pairs (and never asks for
such addresses), and `ingest` drops them, whatever the params say.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.sources.keys import safe_key
from flame_core.digest import value_digest
from flame_core.errors import InputError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.files.whole_files import put

FORGOTTEN = "forgotten"  # the reason in the ledger
SCHEMA = pa.schema(
    {
        "key": pa.string(),  # of the sample, `<source>/<key of the pair>`; null: the request named no sample
        "sha256": pa.list_(pa.string()),  # of the picture's bytes, as received and as stored
        "phash": pa.string(),  # 16 hex digits, only if the request was a pHash
        "addresses": pa.list_(pa.string()),  # `Forgotten.salted`
        "date": pa.string(),  # of the request
        "reason": pa.string(),
        "held": pa.list_(pa.string()),  # DVC's digests of data/shards whose training split had the sample
    }
)
_SALT = b"salt"
_GROWING = ("sha256", "addresses", "held")


@dataclass(frozen=True)
class ForgottenSample:
    """A row of the file; the columns are described in `SCHEMA`."""

    key: str | None = None
    sha256: tuple[str, ...] = ()
    phash: str | None = None
    addresses: tuple[str, ...] = ()
    date: str = ""
    reason: str = ""
    held: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str | tuple[str, ...] | None, ...]:
        """What makes two rows the same: the key, if there is one."""
        return (self.key,) if self.key else (None, self.sha256, self.phash, self.addresses)


@dataclass(frozen=True)
class Forgotten:
    """The content of the file; `of` gives the view of one source."""

    rows: tuple[ForgottenSample, ...] = ()
    salt: str = ""
    source: str = ""

    @cached_property
    def sha256(self) -> frozenset[str]:
        return frozenset(digest for row in self.rows for digest in row.sha256)

    @cached_property
    def hashes(self) -> frozenset[int]:
        return frozenset(int(row.phash, 16) for row in self.rows if row.phash)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(row.key for row in self.rows if row.key)

    @cached_property
    def _addresses(self) -> frozenset[str]:
        return frozenset(each for row in self.rows for each in row.addresses)

    def of(self, source: str) -> Forgotten:
        """The same for the pairs of one source, whose keys have its name in front."""
        return replace(self, source=source)

    def rows_under(self, salt: str) -> tuple[ForgottenSample, ...]:
        """The rows for a file with this salt: without hashes of addresses, if they have another."""
        if salt == self.salt:
            return self.rows
        rows = (replace(row, addresses=()) for row in self.rows)
        return tuple(row for row in rows if row.key or row.sha256 or row.phash)

    @property
    def identity(self) -> dict[str, Any]:
        """What a listing depends on; nothing if nothing is forgotten, so digests of old listings stay."""
        if not self.rows:
            return {}
        keys = sorted(key for key in self._keys if key.startswith(f"{self.source}/"))
        found = [keys, sorted(self.sha256), sorted(self.hashes), sorted(self._addresses)]
        return {FORGOTTEN: value_digest(found)}

    def names(self, key: str, sha256: str | None = None) -> bool:
        """Whether a pair of the source is forgotten, by its own key or its picture."""
        if not self.rows:
            return False
        return sha256 in self.sha256 or safe_key(f"{self.source}/{key}") in self._keys

    def names_bytes(self, content: bytes) -> bool:
        """Whether a picture's bytes are forgotten."""
        return bool(self.sha256) and hashlib.sha256(content).hexdigest() in self.sha256

    def names_address(self, url: str) -> bool:
        """Whether an address is forgotten."""
        return bool(self._addresses) and not self._addresses.isdisjoint(self.salted_forms(url))

    def salted(self, url: str) -> str:
        """The hash under which the file has an address, in the form that is asked for."""
        from flame_core.data.addresses.opt_out import normal_address

        return self._salted(normal_address(url))

    def salted_forms(self, url: str) -> set[str]:
        """The hashes under which the file may have an address: earlier versions took it as it was written."""
        return {self.salted(url), self._salted(url)}

    def _salted(self, text: str) -> str:
        return hashlib.sha256(self.salt.encode() + text.encode("utf-8", "surrogatepass")).hexdigest()


NOTHING = Forgotten()


def read_forgotten(path: Path) -> Forgotten:
    """The content of the file; without rows if there is none.

    Raises:
        InputError: it is damaged. Nothing may be computed without it.
    """
    try:
        table = pq.ParquetFile(path).read()
        rows: list[ForgottenSample] = []
        for row in table.cast(SCHEMA).to_pylist():
            lists = {name: tuple(row[name]) for name in _GROWING}
            rows.append(
                ForgottenSample(row["key"], phash=row["phash"], date=row["date"], reason=row["reason"], **lists)
            )
        return Forgotten(tuple(rows), (table.schema.metadata or {})[_SALT].decode())
    except FileNotFoundError:
        return NOTHING
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is damaged ({error}), so it is not known what must not be used: restore it, for example by "
            f"`git checkout {path.name}`"
        ) from None


def new_salt() -> str:
    """A salt for a file that does not exist yet."""
    return secrets.token_hex(16)


def write_forgotten(path: Path, rows: Sequence[ForgottenSample], salt: str) -> None:
    """Replace the file atomically."""
    schema = SCHEMA.with_metadata({_SALT: salt.encode()})
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA).cast(schema)
    put(path, parquet_bytes(table.replace_schema_metadata(schema.metadata)))


def added(rows: Sequence[ForgottenSample], more: Iterable[ForgottenSample]) -> tuple[ForgottenSample, ...]:
    """Rows and those of `more` that are new; a known one grows."""
    known = {row.identity: row for row in rows}
    for row in more:
        old = known.get(row.identity)
        if old is not None:
            grown = {name: tuple(sorted({*getattr(old, name), *getattr(row, name)})) for name in _GROWING}
            row = replace(old, **grown)
        known[row.identity] = row
    return tuple(known.values())
