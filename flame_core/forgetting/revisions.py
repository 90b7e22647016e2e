"""All revisions of the data that this machine has.

They are the trees of the project and its workspaces, and what DVC's cache holds of the revisions that any `dvc.lock`
names, of now and of git's history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flame_core.dvc_project.recorded import LOCK, out_digests
from flame_core.errors import ResourceError
from flame_core.git import git
from flame_core.layout import Layout
from flame_core.tracking.listings import read_listing
from flame_core.workspace import dvc_cache

OUTS = ("data/raw", "data/shards", "data/captions", "data/embeddings")


@dataclass(frozen=True)
class Revision:
    """A state of the data: {path such as data/shards/index.parquet: where its bytes are}.

    `md5s` has DVC's digest of each file, and is empty for a tree. `unseen`: the cache lacks even the listing of its
    shards or of what was downloaded, as that of a commit that nobody has fetched.
    """

    name: str
    files: Mapping[str, Path]
    md5s: Mapping[str, str]
    unseen: bool = False


def roots(layout: Layout) -> list[Path]:
    """The project, its workspaces and reproductions, as far as they have data.

    A link beside the reproductions is a source of the user's (`tracking/named_places.py`).
    """
    kept = [layout.project]
    for folder in ("runs", "reproduce"):
        kept += (path for path in sorted((layout.state / folder).glob("*")) if not path.is_symlink())
    return [root for root in kept if (root / "data").is_dir()]


def cache_folder(layout: Layout) -> Path | None:
    """DVC's cache of files, which need not exist yet; None if the project is not DVC's."""
    try:
        return dvc_cache(layout) / "files" / "md5"
    except ResourceError:
        return None


def trees(layout: Layout) -> Iterator[Revision]:
    """The data of the project and its workspaces as they are now."""
    for root in roots(layout):
        found = {
            path.relative_to(root).as_posix(): path
            for out in OUTS
            for path in sorted((root / out).rglob("*"))
            if path.is_file()
        }
        yield Revision(str(root), found, {})


def cached(layout: Layout, cache: Path) -> Iterator[Revision]:
    """What the cache has of every revision that a `dvc.lock` names, each once."""
    seen: set[tuple[str | None, ...]] = set()
    for name, digests in _locks(layout):
        own = tuple(digests.get(out) for out in OUTS)
        if own in seen:
            continue
        seen.add(own)
        files: dict[str, Path] = {}
        md5s: dict[str, str] = {}
        listings = {out: read_listing(digest, cache) for out, digest in zip(OUTS, own, strict=True) if digest}
        for out, listing in listings.items():
            for inside, md5 in (listing or {}).items():
                md5s[f"{out}/{inside}"] = md5
                place = cache / md5[:2] / md5[2:]
                if place.is_file():
                    files[f"{out}/{inside}"] = place
        yield Revision(name, files, md5s, any(listings.get(out, {}) is None for out in OUTS[:2]))


def _locks(layout: Layout) -> Iterator[tuple[str, dict[str, str]]]:
    """(name, {out: digest}) of every `dvc.lock`."""
    for root in roots(layout):
        yield str(root), out_digests(root)
    commits = git(layout.project, "rev-list", "--all", "--full-history", "--", LOCK, timeout=None) or ""
    for commit in commits.split():
        try:
            content: Any = yaml.safe_load(git(layout.project, "show", f"{commit}:./{LOCK}", timeout=None) or "")
        except yaml.YAMLError:
            continue
        stages = content.get("stages", {}) if isinstance(content, dict) else {}
        outs = [out for stage in stages.values() for out in stage.get("outs") or []]
        yield f"commit {commit[:12]}", {out["path"]: out["md5"] for out in outs if "md5" in out}
