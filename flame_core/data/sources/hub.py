"""The source `kind: hub`: a data set of the Hugging Face hub, pinned to a commit.

Its files are fetched by several processes, a unit each, and found again by their digests: another commit fetches only
what differs. Tars are listed like `kind: webdataset`; parquet tables are taken apart (`hub/rows.py`).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.hub.access import HubFile, HubTree, find_commit, read_tree
from flame_core.data.hub.fetching import FileTask, count_samples, fetch, is_tar
from flame_core.data.hub.file_listing import FileList, list_file, place_of
from flame_core.data.shards import Split
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.listing_writer import FEW_BYTES, join_listings, listed_unit
from flame_core.data.sources.picture_file import PICTURE_FILE
from flame_core.data.sources.record import RECORDS
from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.params import HubSource
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.work import Unit, UnitRecord, WorkCache

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TREE = "tree.json"


class Hub:
    """The source `kind: hub`."""

    def __init__(self, params: HubSource, forgotten: Forgotten = NOTHING) -> None:
        self._params, self._forgotten = params, forgotten

    def pictures(self, raw: Path) -> Path:
        return raw

    def download(self, work: WorkCache) -> Unit:
        tree = self._tree(work)
        unused = Unused()
        files = self._chosen(tree, unused)
        units = self._fetched(tree, files, work, unused)
        return self._listed(tree, units, work, unused)

    def _tree(self, work: WorkCache) -> HubTree:
        """The files at the commit; a commit that was looked at before is not asked for again."""
        repo, revision = self._params.repo, self._params.revision
        if not _COMMIT.fullmatch(revision):
            commit, licence = find_commit(repo, revision)
        else:
            commit, licence = revision, None
        inputs = {"kind": "hub tree", "repo": repo, "commit": commit}

        def write(folder: Path) -> UnitRecord:
            found, said = (commit, licence) if commit != revision else find_commit(repo, commit)
            if found != commit:
                raise InputError(f"hub data set {repo}: the hub answers with commit {found} for {commit}")
            files = read_tree(repo, commit)
            write_json(folder / _TREE, {"licence": said, "files": [asdict(file) for file in files]})
            return UnitRecord({"files": len(files)})

        content = json.loads(work.get(inputs, write).file(_TREE).read_bytes())
        return HubTree(commit, content["licence"], tuple(HubFile(**file) for file in content["files"]))

    def _chosen(self, tree: HubTree, unused: Unused) -> list[HubFile]:
        """The files that the patterns name, of one format."""
        patterns = self._params.files
        chosen = []
        for file in tree.files:
            if not any(fnmatch.fnmatchcase(file.path, pattern) for pattern in patterns):
                unused.add("not_matched", file.path)
            elif not file.path.lower().endswith((".tar", ".parquet")):
                unused.add("unsupported_suffix", file.path)
            else:
                chosen.append(file)
        if not chosen:
            some = ", ".join(file.path for file in tree.files[:10])
            raise InputError(
                f"hub data set {self._params.repo} has no .tar or .parquet that `files` matches "
                f"({', '.join(patterns)}); it has {some or 'no files'}"
            )
        if len({is_tar(file) for file in chosen}) > 1:
            raise InputError(
                f"hub data set {self._params.repo} has both .tar and .parquet files; name one kind in `files`, such as "
                "[data/*.parquet]"
            )
        val = self._params.val_files
        if val and not any(self._split(file) == "val" for file in chosen):
            raise InputError(f"hub data set {self._params.repo}: none of its files matches val_files {val!r}")
        return chosen

    def _split(self, file: HubFile) -> Split | None:
        if self._params.val_files is None:
            return None
        return "val" if fnmatch.fnmatchcase(file.path, self._params.val_files) else "train"

    def _fetched(
        self, tree: HubTree, files: list[HubFile], work: WorkCache, unused: Unused
    ) -> list[tuple[HubFile, Unit]]:
        """The units of all files; with `max_samples`, of the first files of each split that have so many."""
        tasks = [
            FileTask(self._params.repo, tree.commit, file, self._params.image_column, work, self._forgotten)
            for file in files
        ]
        limit = self._params.max_samples
        if limit is None:
            units = list(map_units(fetch, tasks, settings().workers, "fetch files", "files"))
            return list(zip(files, units, strict=True))
        taken: dict[Split | None, int] = {}
        found: list[tuple[HubFile, Unit]] = []
        for file, task in zip(files, tasks, strict=True):
            split = self._split(file)
            if taken.get(split, 0) >= limit:
                unused.add("beyond_max_samples", file.path, "files")
                continue
            unit = fetch(task)
            found.append((file, unit))
            taken[split] = taken.get(split, 0) + count_samples(file, unit)
        return found

    def _listed(self, tree: HubTree, units: list[tuple[HubFile, Unit]], work: WorkCache, unused: Unused) -> Unit:
        kept = {name: (unit, inner) for file, unit in units for name, inner in _kept(file, unit)}
        inputs = {
            "kind": "hub",
            "params": self._params.model_dump(exclude={"revision", "files"}),
            "records": RECORDS,
            "commit": tree.commit,
            "licence": tree.licence,
            "files": [[file.path, unit.sha256] for file, unit in units],
            "unused": [asdict(group) for group in unused.rows()],
            **self._forgotten.identity,
        }
        unit = work.get(inputs, lambda folder: self._list(folder, tree, units, unused, work))
        return replace(
            unit,
            sha256={**unit.sha256, **{name: each.sha256[inner] for name, (each, inner) in kept.items()}},
            elsewhere={name: each.file(inner) for name, (each, inner) in kept.items()},
        )

    def _list(
        self, folder: Path, tree: HubTree, units: Sequence[tuple[HubFile, Unit]], unused: Unused, work: WorkCache
    ) -> UnitRecord:
        about: dict[str, Any] = {
            "kind": "hub",
            "repo": self._params.repo,
            "revision": self._params.revision,
            "commit": tree.commit,
        }
        about |= {"card_licence": tree.licence, "files": [file.path for file, _ in units]}
        if taken_out := sum(unit.record.counts.get(FORGOTTEN, 0) for _, unit in units):  # of tars; rows stay, empty
            about[FORGOTTEN] = taken_out
        lists = self._lists(units, self._params.licence or tree.licence, work)
        record = join_listings(
            folder,
            lists,
            about=about,
            problems=Problems(),
            unused=unused,
            keep_columns=self._params.keep_columns,
        )
        return listed_unit(record)

    def _lists(self, units: Sequence[tuple[HubFile, Unit]], licence: str | None, work: WorkCache) -> Iterator[Path]:
        """The folders with the lists of the files, in order; up to `max_samples` of each split."""

        def task(file: HubFile, unit: Unit, most: int | None = None) -> FileList:
            return FileList(file, unit, self._split(file), most, licence, self._params, work, self._forgotten)

        limit = self._params.max_samples
        if limit is None:
            workers = settings().workers if sum(file.size for file, _ in units) > FEW_BYTES else 1
            tasks = [task(file, unit) for file, unit in units]
            yield from (unit.folder for unit in map_units(list_file, tasks, workers, "list files", "files"))
            return
        left: dict[Split | None, int] = defaultdict(lambda: limit)
        for file, unit in units:
            split = self._split(file)
            listed = list_file(task(file, unit, left[split]))
            left[split] -= listed.record.counts["samples"]
            yield listed.folder


def _kept(file: HubFile, unit: Unit) -> Iterator[tuple[str, str]]:
    """(name in the source's folder, name in the unit) of the files with pictures."""
    inner = file.path if is_tar(file) else PICTURE_FILE
    if inner in unit.sha256:
        yield place_of(file), inner
