"""Existing webdataset shards, read in place, such as those of img2dataset or CC3M-wds.

Each tar is listed by itself (`tar_listing.py`), and the list of the source is put together from these in the order of
the shards. Files that belong to no sample are counted by kind.
"""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from flame_core.data.forgotten import NOTHING, Forgotten
from flame_core.data.shards import Split
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.beside_shards import note_rest
from flame_core.data.sources.listing import SourceFile
from flame_core.data.sources.listing_writer import FEW_BYTES, join_listings, listed_unit
from flame_core.data.sources.manifest import make_manifest
from flame_core.data.sources.record import RECORDS
from flame_core.data.sources.tar_listing import TarTask, list_tar
from flame_core.errors import InputError
from flame_core.files.regular_files import kind_of
from flame_core.layout import outside_projects
from flame_core.names import printable
from flame_core.params import WebdatasetSource
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.work import Unit, UnitRecord, WorkCache


class Webdataset:
    """The source `kind: webdataset`."""

    def __init__(self, params: WebdatasetSource, folder: Path, forgotten: Forgotten = NOTHING) -> None:
        self._forgotten = forgotten
        self._params = params
        self._folder = folder

    def pictures(self, raw: Path) -> Path:
        return self._folder

    def download(self, work: WorkCache) -> Unit:
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder; `path` of the source must name one")
        problems, unused = Problems(), Unused()
        matched = sorted(outside_projects(self._folder, self._params.shards))
        tars = self._tars(matched, problems)
        require_shards(self._params, str(self._folder), [path.name for path in tars], problems)
        note_rest(self._folder, matched, problems, unused)
        manifest = make_manifest(self._folder, tars, problems)
        return self.listed(manifest, problems, unused, work)

    def listed(self, manifest: list[SourceFile], problems: Problems, unused: Unused, work: WorkCache) -> Unit:
        """The unit with the list of the pairs in these shards, which are in the source's folder."""
        inputs = {
            "params": self._params.identity,
            "records": RECORDS,
            "files": [[entry.path, entry.size, entry.sha256] for entry in manifest],
            "problems": [[problem.file, problem.reason] for problem in problems.rows()],
            "unused": [asdict(group) for group in unused.rows()],
            **self._forgotten.identity,
        }

        def write(folder: Path) -> UnitRecord:
            record = join_listings(
                folder,
                self._lists(manifest, unused, work),
                about={"kind": "webdataset"},
                problems=problems,
                unused=unused,
                manifest=manifest,
                keep_columns=self._params.keep_columns,
                forgotten=self._forgotten,
            )
            return listed_unit(record)

        return work.get({"kind": "webdataset", **inputs}, write)

    def _tars(self, matched: Sequence[Path], problems: list[Problem]) -> list[Path]:
        """The regular files that `shards` matches; anything else that it matches is a problem."""
        tars: list[Path] = []
        for path in matched:
            name = printable(path.relative_to(self._folder).as_posix())
            try:
                kind = kind_of(path.stat().st_mode)
            except OSError as error:
                problems.append(Problem(name, "unreadable_file", error.strerror or str(error)))
                continue
            if kind is None:
                tars.append(path)
            else:
                problems.append(Problem(name, "not_a_file", f"is {kind}, not a file"))
        return tars

    def _lists(self, manifest: Sequence[SourceFile], unused: Unused, work: WorkCache) -> Iterator[Path]:
        """The folders with the lists of the tars, in order.

        How many samples a tar gives to `max_samples` depends on those before it, so these are listed one after another.
        """

        def task(tar: SourceFile, most: int | None = None) -> TarTask:
            return TarTask(self._folder, tar, self._split(tar.path), most, self._params, work, self._forgotten)

        limit = self._params.max_samples
        if limit is None:
            workers = settings().workers if sum(tar.size for tar in manifest) > FEW_BYTES else 1
            yield from (
                unit.folder for unit in map_units(list_tar, list(map(task, manifest)), workers, "list shards", "shards")
            )
            return
        left: dict[Split | None, int] = defaultdict(lambda: limit)
        for tar in manifest:
            split = self._split(tar.path)
            if not left[split]:
                unused.add("beyond_max_samples", tar.path, "shards")
                continue
            listed = list_tar(task(tar, left[split]))
            left[split] -= listed.record.counts["samples"]
            yield listed.folder

    def _split(self, shard: str) -> Split | None:
        if self._params.val_shards is None:
            return None
        return "val" if fnmatch.fnmatch(Path(shard).name, self._params.val_shards) else "train"


def require_shards(params: WebdatasetSource, place: str, names: Sequence[str], problems: Sequence[Problem]) -> None:
    """Refuse a place without shards, or without those of the validation split.

    Raises:
        InputError: names the place and the pattern.
    """
    if not names:
        named = "".join(f"; {problem.file}: {problem.detail}" for problem in problems[:3])
        raise InputError(f"{place} holds no file {params.shards!r}; `shards` must match some{named}")
    val = params.val_shards
    if val and not any(fnmatch.fnmatch(name, val) for name in names):
        raise InputError(f"{place}: none of the shards matches val_shards {val!r}")
