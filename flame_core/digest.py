"""Digests of a file's bytes and of a value's canonical JSON. Everything cached is looked up by one of the two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_sha256(content: bytes) -> str:
    """sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> str:
    """A value's unique JSON text: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def value_digest(value: Any) -> str:
    """sha256 of `canonical_json(value)`, in hexadecimal."""
    return bytes_sha256(canonical_json(value).encode())


def text_sha256(text: str) -> str:
    """sha256 of a text in UTF-8, in hexadecimal."""
    return bytes_sha256(text.encode("utf-8", "surrogatepass"))


def json_bytes(value: Any) -> bytes:
    """Readable, byte-stable JSON: sorted keys, indented, a final newline."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_lines_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One line of JSON per row, with sorted keys."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()


def write_json(path: Path, value: Any) -> None:
    """Write `json_bytes(value)`."""
    path.write_bytes(json_bytes(value))
