"""DVC's digest of a folder: the md5 of its listing, which is in the cache as `<md5>.dir`.

A listing is a JSON list of {md5, relpath}, sorted by path. So the digest of a folder inside an out can be computed from
the out's listing, and equals the digest that DVC records for a stage that depends on that folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def read_listing(digest: str, cache: Path) -> dict[str, str] | None:
    """{relative path: md5} of a folder; None if its listing is missing or damaged, and of an out that is a file."""
    if not digest.endswith(".dir"):
        return None
    file = cache / digest[:2] / digest[2:]
    if not file.is_file() or file_md5(file) != digest.removesuffix(".dir"):
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(file.read_text("utf-8"))}


def folder_md5(files: Mapping[str, str]) -> str:
    """DVC's digest of a folder of these files, {relative path: md5}."""
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def part_md5(digest: str, folder: str, cache: Path) -> str | None:
    """DVC's digest of a folder inside the out with this digest; None if the cache lacks the out's listing."""
    listing = read_listing(digest, cache)
    if listing is None:
        return None
    inside = f"{folder}/"
    return folder_md5({name.removeprefix(inside): md5 for name, md5 in listing.items() if name.startswith(inside)})


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
