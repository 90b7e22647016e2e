"""Listings of folders in DVC's cache; an out may be a file, which has none."""

from __future__ import annotations

import json
from pathlib import Path

from flame_core.tracking.listings import file_md5, folder_md5, part_md5, read_listing


def keep(cache: Path, content: str, suffix: str = "") -> str:
    """Put a text into a cache; returns DVC's digest of it."""
    (cache / "new").write_text(content)
    md5 = file_md5(cache / "new")
    (cache / md5[:2]).mkdir(exist_ok=True)
    (cache / "new").rename(cache / md5[:2] / f"{md5[2:]}{suffix}")
    return f"{md5}{suffix}"


def test_a_listing_and_the_digest_of_a_part_of_it(tmp_path):
    files = {"a": "1" * 32, "train/b": "2" * 32}
    listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in files.items()], sort_keys=True)
    digest = keep(tmp_path, listing, ".dir")
    assert digest == folder_md5(files)
    assert read_listing(digest, tmp_path) == files
    assert part_md5(digest, "train", tmp_path) == folder_md5({"b": "2" * 32})


def test_a_file_has_no_listing(tmp_path):
    digest = keep(tmp_path, "teacher: {recipe: flame}\n")
    assert read_listing(digest, tmp_path) is None
    assert part_md5(digest, "train", tmp_path) is None
