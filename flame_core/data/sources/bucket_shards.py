"""The source `kind: webdataset` whose `path` is an address: shards in a bucket, copied to this machine and read there.

The list of pairs is that of the same shards in a folder. `data/raw` has the sha256 of each shard, so copies that were
deleted meanwhile are made again before they are read, and are the same.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from flame_core.data.buckets.bucket import Bucket, BucketFile, open_bucket
from flame_core.data.buckets.staging import Stage
from flame_core.data.forgotten import NOTHING, Forgotten
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.beside_shards import listed_entries, note_others
from flame_core.data.sources.listing import SourceFile, read_manifest
from flame_core.data.sources.manifest import make_manifest
from flame_core.data.sources.webdataset import Webdataset, require_shards
from flame_core.errors import InputError
from flame_core.params import WebdatasetSource
from flame_core.work import Unit, WorkCache


class BucketShards:
    """Webdataset shards at an address."""

    def __init__(self, params: WebdatasetSource, forgotten: Forgotten = NOTHING) -> None:
        self._params = params
        self._stage = Stage(params.path, params.shards)
        self._local = Webdataset(params, self._stage.files, forgotten)

    @cached_property
    def _bucket(self) -> Bucket:
        return open_bucket(self._params.path)

    def pictures(self, raw: Path) -> Path:
        """The folder of the copies; `stage_again` makes those that are missing."""
        return self._stage.files

    def download(self, work: WorkCache) -> Unit:
        files = self._bucket.files()
        shards = [file for file in files if matches(file.path, self._params.shards)]
        problems, unused = Problems(), Unused()
        names = [file.path.rpartition("/")[2] for file in shards]
        require_shards(self._params, self._stage.address, names, problems)
        note_others({file.path for file in shards}, listed_entries(file.path for file in files), problems, unused)
        shards.sort(key=lambda file: Path(file.path))  # as in a folder
        manifest = self._manifest(shards, problems)
        return self._local.listed(manifest, problems, unused, work)

    def _manifest(self, shards: Sequence[BucketFile], problems: Problems) -> list[SourceFile]:
        copied = self._stage.fetch(self._bucket, shards)
        manifest = make_manifest(self._stage.files, [self._stage.files / file.path for file in shards], problems)
        damaged = [entry.path for entry in manifest if entry.sha256 != copied[entry.path]]
        if not damaged:
            return manifest
        self._stage.discard(damaged)  # this machine's disk changed them since
        copied = self._stage.fetch(self._bucket, shards)
        again = {path: SourceFile(path, (self._stage.files / path).stat().st_size, copied[path]) for path in damaged}
        return [again.get(entry.path, entry) for entry in manifest]

    def stage_again(self, raw: Path) -> None:
        """Have the copies that the list in `raw` was made from.

        Raises:
            InputError: the bucket holds other shards than were listed; names one.
            ResourceError: the bucket cannot be reached, or there is no room.
        """
        listed = {entry.path: entry for entry in read_manifest(raw)}
        sha256 = {path: entry.sha256 for path, entry in listed.items()}
        if self._stage.has({path: entry.size for path, entry in listed.items()}, sha256):
            return
        files = {file.path: file for file in self._bucket.files() if file.path in listed}
        for path, entry in listed.items():
            if path not in files or files[path].size != entry.size:
                what = "is gone" if path not in files else f"has {files[path].size:,} bytes, and had {entry.size:,}"
                raise InputError(f"{self._stage.address}/{path} {what}; run `flame download` again")
        self._stage.fetch(self._bucket, list(files.values()), sha256)


def matches(path: str, pattern: str) -> bool:
    """Whether a path below a folder matches a pattern as `Path.glob` reads it: `**` are folders, if any."""
    return _matches(path.split("/"), [part for part in pattern.split("/") if part not in ("", ".")])


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[start:], pattern[1:]) for start in range(len(path)))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
