"""Keys of samples: short, plain and stable, whatever the files are called.

A key identifies a sample permanently in shards, ledgers and tables, so it has no character with a special meaning there
(webdataset splits names at the first dot) and fits into a tar header. A name that must be altered gets a hash of the
original, so two names never become one key.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_/-]+")
_LONGEST = 90  # characters; with .json this fits into the 100 of a tar header


def safe_key(name: str) -> str:
    """`name` as a key of the characters `A-Z a-z 0-9 _ - /`; unchanged if it is one already."""
    key = "/".join(part for part in _FORBIDDEN.sub("_", name).split("/") if part)
    if key and key == name and len(key) <= _LONGEST:
        return key
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{key[: _LONGEST - len(mark) - 1]}-{mark}"


def stem_of(name: str) -> str:
    """A file's name without its suffix, in plain form; a table may also name `.` or `/`, which have none."""
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.name else path).as_posix()


def folders_of(stem: str) -> str | None:
    """The folders above a file, such as `animals/birds`; None if it is directly in the source's folder."""
    parent = PurePosixPath(stem).parent.as_posix()
    return None if parent == "." else parent


def words_of(name: str) -> str:
    """The words of a file's stem: `iso_fire-engine_02` becomes `iso fire engine`."""
    words = re.findall(r"[^\W\d_]+|\d+", name)
    spoken = [word for word in words if not word.isdigit()]
    return " ".join(spoken or words)
