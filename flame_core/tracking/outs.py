"""Whether the bytes of an out are still there: in the tree, in DVC's cache, or in its remote.

DVC names an out's bytes by md5: a file's own, and for a folder that of its listing (`listings`).
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flame_core.layout import Layout
from flame_core.tracking.listings import file_md5, folder_md5, read_listing
from flame_core.tracking.provenance import LOCK, out_digests
from flame_core.workspace import dvc, dvc_cache, environment


@dataclass(frozen=True)
class Finding:
    """Where the bytes of an out were found; `problems` name the files that are missing or differ."""

    where: str | None  # tree, cache, remote, or None
    problems: list[str] = field(default_factory=list)


def find_bytes(layout: Layout, path: str, digest: str, lock: dict[str, Any]) -> Finding:
    """Look for the bytes of an out, every file hashed again.

    Args:
        layout: of the main line.
        path: of the out, such as `data/shards`.
        digest: DVC's, as the run recorded it.
        lock: content of the run's `dvc.lock`, by which a remote is asked.
    """
    cache = dvc_cache(layout) / "files" / "md5"
    current = out_digests(layout.root).get(path) == digest
    if current and (layout.root / path).exists():  # then the tree is meant to hold these very bytes
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
    if listing is None:  # the cache lost it; the whole can still be told
        return [] if folder_md5(found) == digest else [f"{path}: its files have changed"]
    changed = [
        f"{path}/{name}: its bytes have changed" for name in listing if found.get(name, listing[name]) != listing[name]
    ]
    missing = [f"{path}/{name}: missing" for name in listing if name not in found]
    added = [f"{path}/{name}: not part of it" for name in found if name not in listing]
    return changed + missing + added


def _cached(path: str, digest: str, cache: Path) -> list[str]:
    """What of an out the cache lacks, or holds with other bytes."""
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
    """Ask the default remote for an out by the run's own lock; false where there is no remote."""
    remote = _dvc(layout.project, "config", "core.remote")
    if remote is None or not remote.strip():
        return False
    with tempfile.TemporaryDirectory(dir=layout.state) as folder:
        root = Path(folder)
        (root / ".dvc").mkdir()
        for name in ("config", "config.local"):
            if (own := layout.project / ".dvc" / name).is_file():
                (root / ".dvc" / name).write_text(_absolute(own.read_text("utf-8"), layout.project), "utf-8")
        makers = [stage for stage in lock["stages"].values() if _makes(stage, path)]
        stages = {f"stage{i}": stage for i, stage in enumerate(makers)}  # a plain name for `train@flame` and the like
        described = {name: {"cmd": stage["cmd"], "outs": [path]} for name, stage in stages.items()}
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": described}), "utf-8")
        (root / LOCK).write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False), "utf-8")
        commands = (
            ("config", "--local", "core.no_scm", "true"),
            ("cache", "dir", "--local", str(dvc_cache(layout).resolve())),
            ("fetch", *stages),
        )
        return all(_dvc(root, *command) is not None for command in commands)


def _makes(stage: dict[str, Any], path: str) -> bool:
    return any(out["path"] == path for out in stage.get("outs", []))


def _absolute(config: str, project: Path) -> str:
    """A DVC config whose relative addresses (against `.dvc/`) hold elsewhere."""
    lines = []
    for line in config.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() == "url" and "://" not in value and not value.strip().startswith("/"):
            line = f"{key}= {(project / '.dvc' / value.strip()).resolve()}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _dvc(root: Path, *arguments: str) -> str | None:
    """Output of a DVC command; None where it failed."""
    done = subprocess.run(
        [*dvc(), *arguments], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else None
