"""The source `kind: hub`: a data set of the Hugging Face hub, pinned to a commit.

Its files are fetched by several processes, a unit each, and found again by their digests: another commit fetches only
what differs. Tars are listed like `kind: webdataset`; parquet tables are taken apart (`hub/rows.py`).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.hub.access import HubFile, HubTree, fetch_file, find_commit, read_tree
from flame_core.data.hub.rows import PLACE, ROWS, read_place, take_apart
from flame_core.data.hub.without import copy_members, copy_rows
from flame_core.data.shards import SPLITS, Split
from flame_core.data.sources import ImageRef, RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.kept_columns import KeptColumns
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import KEPT_COLUMNS
from flame_core.data.sources.listing_writer import listed_unit, write_listing
from flame_core.data.sources.picture_file import PICTURE_FILE
from flame_core.data.sources.record import RECORDS, RecordReader
from flame_core.data.sources.table import Row, Table, read_table
from flame_core.data.sources.tar_content import read_samples
from flame_core.digest import value_digest, write_json
from flame_core.errors import InputError
from flame_core.params import HubSource
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.work import Unit, UnitRecord, WorkCache

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TREE = "tree.json"


@dataclass(frozen=True)
class FileTask:
    """A file that becomes a unit."""

    repo: str
    commit: str
    file: HubFile
    image_column: str
    work: WorkCache
    forgotten: Forgotten = NOTHING

    @property
    def digest(self) -> str:
        """Of the bytes, by the hub's own word, so that a file is found again at another commit."""
        about = {"path": self.file.path, "size": self.file.size, "bytes": self.file.sha256 or self.file.blob_id}
        column = None if is_tar(self.file) else self.image_column
        return value_digest({"unit": "hub file", **about, "image_column": column})


def is_tar(file: HubFile) -> bool:
    """Whether a file is read as webdataset; else it is a parquet table."""
    return file.path.lower().endswith(".tar")


def fetch(task: FileTask) -> Unit:
    """The unit of a file, found or fetched, without what is forgotten; nothing is fetched again for that."""
    unit = task.work.find(task.digest) or task.work.compute(task.digest, lambda folder: _fetch(task, folder))
    if not any(True for _ in _forgotten(task, unit.folder)):
        return unit
    return task.work.mend(task.digest, lambda folder, _: _copy_rest(task, unit, folder), lambda _: True)


def _forgotten(task: FileTask, folder: Path) -> Iterator[str]:
    """What is forgotten and still there: names of samples of a tar, numbers of rows of a table."""
    if not task.forgotten.rows:
        return
    stem = task.file.path.rpartition(".")[0]
    if is_tar(task.file):
        for sample in read_samples(folder, task.file.path, [], Unused()):
            if task.forgotten.names(safe_key(f"{stem}/{sample.key}"), sample.image and sample.image.sha256):
                yield sample.key
        return
    for number, place in enumerate(pq.read_table(folder / ROWS, columns=[PLACE]).column(0).to_pylist()):
        image = read_place(folder, place)
        sha256 = image.sha256 if isinstance(image, ImageRef) else None
        if place is not None and task.forgotten.names(safe_key(f"{stem}/{number + 1:08d}"), sha256):
            yield str(number)


def _copy_rest(task: FileTask, unit: Unit, folder: Path) -> UnitRecord:
    """Copy what is not forgotten of a unit; the rows of a table keep their numbers, which are in their keys."""
    gone = set(_forgotten(task, unit.folder))
    if is_tar(task.file):
        (folder / task.file.path).parent.mkdir(parents=True, exist_ok=True)
        keys = {sample.key for sample in read_samples(unit.folder, task.file.path, [], Unused())}
        copy_members(unit.folder / task.file.path, folder / task.file.path, gone, keys - gone)
        left_out = unit.record.counts.get(FORGOTTEN, 0) + len(gone)
        return UnitRecord({"bytes": (folder / task.file.path).stat().st_size, FORGOTTEN: left_out})
    return UnitRecord({"rows": copy_rows(unit.folder, folder, {int(number) for number in gone})})


def _fetch(task: FileTask, folder: Path) -> UnitRecord:
    with TemporaryDirectory(dir=folder) as own:
        fetched = fetch_file(task.repo, task.commit, task.file, Path(own))
        if not is_tar(task.file):
            rows = take_apart(fetched, f"{task.repo}: {task.file.path}", task.image_column, folder)
            return UnitRecord({"rows": rows})
        place = folder / task.file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        fetched.rename(place)
    return UnitRecord({"bytes": task.file.size})


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
            taken[split] = taken.get(split, 0) + _samples(file, unit)
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
        unit = work.get(inputs, lambda folder: self._list(folder, tree, units, unused))
        return replace(
            unit,
            sha256={**unit.sha256, **{name: each.sha256[inner] for name, (each, inner) in kept.items()}},
            elsewhere={name: each.file(inner) for name, (each, inner) in kept.items()},
        )

    def _list(self, folder: Path, tree: HubTree, units: list[tuple[HubFile, Unit]], unused: Unused) -> UnitRecord:
        problems = Problems()
        licence = self._params.licence or tree.licence
        language, group_field = self._params.language, self._params.group_field
        reader = RecordReader((self._params.caption_column,), language, group_field, licence)
        about: dict[str, Any] = {
            "kind": "hub",
            "repo": self._params.repo,
            "revision": self._params.revision,
            "commit": tree.commit,
        }
        about |= {"card_licence": tree.licence, "files": [file.path for file, _ in units]}
        if taken_out := sum(unit.record.counts.get(FORGOTTEN, 0) for _, unit in units):  # of tars; rows stay, empty
            about[FORGOTTEN] = taken_out
        kept = KeptColumns(folder / KEPT_COLUMNS if self._params.keep_columns else None)
        pairs = self._pairs(folder, units, reader, problems, unused, kept)
        record = write_listing(
            folder, folder, pairs, about=about, problems=problems, unused=unused, forgotten=self._forgotten
        )
        kept.close()
        return listed_unit(record)

    def _pairs(
        self,
        folder: Path,
        units: list[tuple[HubFile, Unit]],
        reader: RecordReader,
        problems: Problems,
        unused: Unused,
        kept: KeptColumns,
    ) -> Iterator[RawPair]:
        limit = self._params.max_samples
        taken: dict[Split | None, int] = {}
        for file, unit in units:
            split = self._split(file)
            read = self._tar_pairs if is_tar(file) else self._table_pairs
            for pair, records in read(folder / _place_of(file), file, unit, reader, problems, unused):
                if limit is not None and taken.get(split, 0) >= limit:
                    unused.add("beyond_max_samples", pair.key, "samples")
                    continue
                taken[split] = taken.get(split, 0) + 1
                if not self._forgotten.names(pair.key, pair.image and pair.image.sha256):  # rows as `write_listing` has
                    kept.add(pair.key, [{"columns": self._columns(record)} for record in records])
                left_out = pair.split not in (None, *SPLITS) and split != "val"
                yield pair if split is None or left_out else replace(pair, split=split)

    def _columns(self, record: Row) -> Row:
        return {name: record.get(name) for name in self._params.keep_columns}

    def _tar_pairs(
        self, place: Path, file: HubFile, unit: Unit, reader: RecordReader, problems: Problems, unused: Unused
    ) -> Iterator[tuple[RawPair, Sequence[Row]]]:
        stem = file.path.rpartition(".")[0]
        for sample in read_samples(unit.folder, file.path, problems, unused):
            image = sample.image and replace(sample.image, path=place)
            pair = reader.pair(
                safe_key(f"{stem}/{sample.key}"), image, sample.records, texts=sample.texts, unused=unused
            )
            yield replace(pair, unread=sample.unread), sample.records

    def _table_pairs(
        self, place: Path, file: HubFile, unit: Unit, reader: RecordReader, problems: Problems, unused: Unused
    ) -> Iterator[tuple[RawPair, Sequence[Row]]]:
        stem = file.path.rpartition(".")[0]
        needed = (PLACE, *reader.caption_fields, *filter(None, [reader.group_field]), *self._params.keep_columns)
        found = Problems()
        table = Table(unit.file(ROWS), PLACE, needed, reader.fields, "utf-8", None, found)
        try:
            for number, row in read_table(table):
                image = read_place(place, row.pop(PLACE))
                key = safe_key(f"{stem}/{number:08d}")
                lost = None if isinstance(image, ImageRef) else f"{key} ({image or 'no bytes'})"
                found_image = image if isinstance(image, ImageRef) else None
                yield reader.pair(key, found_image, [row], missing=lost, unused=unused), [row]
        except InputError as error:
            raise InputError(str(error).replace(str(unit.file(ROWS)), f"{self._params.repo}: {file.path}")) from None
        for problem in found.rows():
            problems.append(replace(problem, file=file.path))


def _place_of(file: HubFile) -> str:
    """Where the pictures of a file are in the source's folder."""
    return f"files/{file.path}" if is_tar(file) else f"files/{file.path}.{PICTURE_FILE}"


def _kept(file: HubFile, unit: Unit) -> Iterator[tuple[str, str]]:
    """(name in the source's folder, name in the unit) of the files with pictures."""
    inner = file.path if is_tar(file) else PICTURE_FILE
    if inner in unit.sha256:
        yield _place_of(file), inner


def _samples(file: HubFile, unit: Unit) -> int:
    """How many samples a file holds."""
    if not is_tar(file):
        return pq.read_metadata(unit.file(ROWS)).num_rows
    return sum(1 for _ in read_samples(unit.folder, file.path, [], Unused()))
