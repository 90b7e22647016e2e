"""Checks whether the bytes of an out still exist: in the tree, in DVC's cache, or in its remote.

DVC names an out's bytes by md5: that of the file, or for a folder that of its listing (`listings`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flame_core.dvc_project.recorded import LOCK, out_digests
from flame_core.files.whole_folders import scratch_below
from flame_core.layout import Layout
from flame_core.tracking.dvc_settings import copy_dvc_settings, dvc_output
from flame_core.tracking.listings import file_md5, folder_md5, read_listing
from flame_core.workspace import dvc_cache


@dataclass(frozen=True)
class Finding:
    """Where the bytes of an out were found; `problems` name the files that are missing or differ."""

    where: str | None  # tree, cache, remote, or None
    problems: list[str] = field(default_factory=list)


def find_bytes(layout: Layout, path: str, digest: str, lock: dict[str, Any]) -> Finding:
    """Look for the bytes of an out, and hash every file again.

    Args:
        layout: the main line's.
        path: the out's, such as `data/shards`.
        digest: DVC's digest of the out, as the run recorded it.
        lock: content of the run's `dvc.lock`, used to fetch from a remote.
    """
    cache = dvc_cache(layout) / "files" / "md5"
    current = out_digests(layout.root).get(path) == digest
    if current and (layout.root / path).exists():  # then the tree should hold exactly these bytes
        problems = _compare(layout.root / path, path, digest, cache)
        return Finding(None if problems else "tree", problems)
    problems = _cached(path, digest, cache)
    if not problems:
        return Finding("cache")
    if _fetched(layout, path, lock) and not _cached(path, digest, cache):
        return Finding("remote")
    return Finding(None, problems)


def _compare(place: Path, path: str, digest: str, cache: Path) -> list[str]:
    """What differs between a file or folder of the tree and its digest."""
    if place.is_file():
        return [] if file_md5(place) == digest else [f"{path}: its bytes have changed"]
    found = {file.relative_to(place).as_posix(): file_md5(file) for file in place.rglob("*") if file.is_file()}
    listing = read_listing(digest, cache)
    if listing is None:  # not in the cache; the folder's digest can still be compared
        return [] if folder_md5(found) == digest else [f"{path}: its files have changed"]
    changed = [
        f"{path}/{name}: its bytes have changed" for name in listing if found.get(name, listing[name]) != listing[name]
    ]
    missing = [f"{path}/{name}: missing" for name in listing if name not in found]
    added = [f"{path}/{name}: not part of it" for name in found if name not in listing]
    return changed + missing + added


def _cached(path: str, digest: str, cache: Path) -> list[str]:
    """The files of an out that are missing from the cache or damaged in it."""
    if not digest.endswith(".dir"):
        return _cached_file(path, digest, cache)
    listing = read_listing(digest, cache)
    if listing is None:
        return [f"{path}: neither in the tree nor in the cache ({digest})"]
    return [problem for name, md5 in listing.items() for problem in _cached_file(f"{path}/{name}", md5, cache)]


def _cached_file(name: str, md5: str, cache: Path) -> list[str]:
    file = cache / md5[:2] / md5[2:]
    if not file.is_file():
        return [f"{name}: not in the cache ({md5})"]
    return [] if file_md5(file) == md5 else [f"{name}: damaged in the cache ({file})"]


def _fetched(layout: Layout, path: str, lock: dict[str, Any]) -> bool:
    """Fetch an out from the default remote with the run's own lock; False if there is no remote."""
    remote = dvc_output(layout.project, "config", "core.remote")
    if remote is None or not remote.strip():
        return False
    with scratch_below(layout.state) as root:
        copy_dvc_settings(layout, root)
        makers = [stage for stage in lock["stages"].values() if _makes(stage, path)]
        stages = {
            f"stage{i}": stage for i, stage in enumerate(makers)
        }  # plain names, instead of names such as `train@flame`
        described = {name: {"cmd": stage["cmd"], "outs": [path]} for name, stage in stages.items()}
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": described}), "utf-8")
        (root / LOCK).write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False), "utf-8")
        return dvc_output(root, "fetch", *stages) is not None


def _makes(stage: dict[str, Any], path: str) -> bool:
    return any(out["path"] == path for out in stage.get("outs", []))
