"""A folder of pictures with captions beside them, or in one table; read in place.

Without a table, `bird.jpg` goes with `bird.txt` (every line that is not blank is a caption) and `bird.json` (an object
with `caption` or `captions`, see `record.py`), and folders below it give the category. With one, each row of the
`.csv`, `.jsonl` or `.parquet` file names a picture and a caption; rows of the same picture add up. Pictures without
a caption and captions without a picture are listed too, so that ingest can count and name them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import SourceFile, write_listing
from flame_core.data.sources.manifest import make_manifest
from flame_core.data.sources.record import RecordReader, json_object
from flame_core.data.sources.table import read_table
from flame_core.errors import InputError
from flame_core.params import FolderSource
from flame_core.work import Ledger, Unit, WorkCache

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg"}
SIDECARS = {".txt", ".json"}


class Folder:
    """The source `kind: folder`."""

    def __init__(self, params: FolderSource, folder: Path) -> None:
        self._params = params
        self._folder = folder
        self._table = folder / params.table if params.table else None
        columns = ("caption", "captions") if params.table is None else (params.caption_column,)
        self._reader = RecordReader(columns, params.language, params.group_field, params.licence)

    def pictures(self, raw: Path) -> Path:
        return self._folder

    def download(self, work: WorkCache) -> Unit:
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder; `path` of the source must name one")
        if self._table and not self._table.is_file():
            raise InputError(f"{self._table} does not exist; `table` of the source must name a file in its `path`")
        problems: list[Problem] = []
        manifest = make_manifest(self._folder, self._files(), problems)
        inputs = {
            "params": self._params.model_dump(exclude={"path"}),
            "files": [[entry.path, entry.size, entry.sha256] for entry in manifest],
            "problems": [problem.file for problem in problems],
        }
        return work.get({"kind": "folder", **inputs}, lambda folder: self._list(folder, manifest, problems))

    def _files(self) -> list[Path]:
        wanted = PICTURES if self._table else PICTURES | SIDECARS
        found = [
            path
            for path in self._folder.rglob("*")
            if path.suffix.lower() in wanted
            and not any(part.startswith(".") for part in path.relative_to(self._folder).parts)
            and not path.is_dir()
        ]
        return sorted([*found, *([self._table] if self._table else [])])

    def _list(self, folder: Path, manifest: list[SourceFile], problems: list[Problem]) -> Ledger:
        files = {entry.path: entry for entry in manifest}
        pairs = self._table_pairs(self._table, files, problems) if self._table else self._sidecar_pairs(files, problems)
        about = {"kind": "folder"}
        record = write_listing(folder, self._folder, pairs, about=about, problems=problems, manifest=manifest)
        failures = {problem["file"]: problem["reason"] for problem in record["problems"]}
        return Ledger(counts={"pairs": record["pairs"]}, failures=failures)

    def _image(self, entry: SourceFile) -> ImageRef:
        return ImageRef(self._folder / entry.path, 0, entry.size, entry.sha256)

    def _sidecar_pairs(self, files: Mapping[str, SourceFile], problems: list[Problem]) -> Iterator[RawPair]:
        """One pair a picture, and one for each sidecar without a picture."""
        stems: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"pictures": [], "sidecars": []})
        for name in sorted(files):
            path = PurePosixPath(name)
            kind = "sidecars" if path.suffix.lower() in SIDECARS else "pictures"
            stems[path.with_suffix("").as_posix()][kind].append(name)
        for stem, names in sorted(stems.items()):
            texts: list[str] = []
            records: list[dict[str, Any]] = []
            for name in names["sidecars"]:
                content = (self._folder / name).read_text("utf-8-sig", errors="replace")
                if name.lower().endswith(".txt"):
                    texts += [line for line in content.splitlines() if line.strip()]
                elif (record := json_object(content)) is not None:
                    records.append(record)
                else:
                    problems.append(Problem(name, "damaged_file", "not a JSON object"))
            for name in names["pictures"] or [None]:
                image = self._image(files[name]) if name else None
                yield self._reader.pair(safe_key(stem), image, records, texts=texts, category=_category(stem))

    def _table_pairs(self, table: Path, files: Mapping[str, SourceFile], problems: list[Problem]) -> Iterator[RawPair]:
        """One pair a picture that the table names or the folder holds."""
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        columns: set[str] = set()
        for number, row in read_table(table, problems):
            columns |= row.keys()
            name = row.get(self._params.image_column)
            if isinstance(name, str) and name.strip():
                rows[PurePosixPath(name.strip()).as_posix()].append(row)
            elif self._params.image_column in row:
                problems.append(Problem(table.name, "damaged_row", f"row {number} names no picture"))
        for column in (self._params.image_column, self._params.caption_column):
            if column not in columns:
                raise InputError(f"{table} has no column {column!r}; it has {', '.join(sorted(columns)) or 'no rows'}")
        table_name = table.relative_to(self._folder).as_posix()
        for name in sorted(rows.keys() | (files.keys() - {table_name})):
            image = self._image(files[name]) if name in files and name != table_name else None
            stem = PurePosixPath(name).with_suffix("").as_posix()
            yield self._reader.pair(safe_key(stem), image, rows.get(name, []), category=_category(stem))


def _category(stem: str) -> str | None:
    parent = PurePosixPath(stem).parent.as_posix()
    return None if parent == "." else parent
