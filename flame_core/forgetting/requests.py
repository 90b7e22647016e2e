"""What is to be forgotten: keys, sha256, perceptual hashes (`p:` and 16 hex digits) and addresses, one per line.

An `opt_out.parquet` can be given as well: that of the other branch, after a merge in which git could take only one.

The forms are those of `opt_out.lists` of `kind: urls`, with keys in place of hosts; addresses are compared as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flame_core.data.forgotten import NOTHING, Forgotten, read_forgotten
from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError, ParamsError

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_PHASH = re.compile(r"p:([0-9a-fA-F]{16})")
_KEY = re.compile(r"[A-Za-z0-9_/-]+")
_PARQUET = b"PAR1"


@dataclass(frozen=True)
class Requests:
    """What was asked for, by kind; `theirs` is the other `opt_out.parquet` that asks for it."""

    keys: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    hashes: frozenset[int] = frozenset()
    urls: frozenset[str] = frozenset()
    theirs: Forgotten = NOTHING

    def __bool__(self) -> bool:
        return bool(self.keys or self.sha256 or self.hashes or self.urls or self.theirs.rows)

    def __or__(self, other: Requests) -> Requests:
        theirs = self.theirs if self.theirs.rows else other.theirs
        return Requests(
            self.keys | other.keys,
            self.sha256 | other.sha256,
            self.hashes | other.hashes,
            self.urls | other.urls,
            theirs,
        )

    def lines(self) -> list[str]:
        """As a file of requests would say it."""
        hashes = (f"p:{number:016x}" for number in self.hashes)
        return [*sorted(self.keys), *sorted(self.sha256), *sorted(hashes), *sorted(self.urls)]


def parse_requests(lines: Iterable[str], where: str) -> Requests:
    """The requests in lines; empty ones and those that begin with `#` say nothing.

    Raises:
        ParamsError: a line is none of the four kinds.
    """
    keys, sha256, hashes, urls = set[str](), set[str](), set[int](), set[str]()
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if _SHA256.fullmatch(line):
            sha256.add(line.lower())
        elif found := _PHASH.fullmatch(line):
            hashes.add(int(found[1], 16))
        elif "://" in line:
            urls.add(line)
        elif _KEY.fullmatch(line) and "/" in line:
            keys.add(line)
        else:
            raise ParamsError(
                f"{where}, line {number}: {line[:100]!r} is no key (<source>/<name>, as in data/shards/index.parquet), "
                "no sha256, no pHash (p: and 16 hex digits) and no address"
            )
    return Requests(frozenset(keys), frozenset(sha256), frozenset(hashes), frozenset(urls))


def read_requests(path: Path) -> Requests:
    """The requests in a file of lines, or in an `opt_out.parquet`.

    Raises:
        InputError: it cannot be read.
        ParamsError: a line is none of the four kinds.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_PARQUET):
            return _requests_of(read_forgotten(path))
        return parse_requests(decode_text(content).splitlines(), str(path))
    except (OSError, TextError) as error:
        raise InputError(f"{path}: {error}") from None


def _requests_of(forgotten: Forgotten) -> Requests:
    """What the rows of an `opt_out.parquet` name."""
    keys = frozenset(row.key for row in forgotten.rows if row.key)
    return Requests(keys, forgotten.sha256, forgotten.hashes, theirs=forgotten)
