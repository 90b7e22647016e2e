"""A folder of pictures with captions beside them or in one table, read in place.

Without a table, `bird.jpg` belongs to `bird.txt` or `bird.caption` (every line that is not blank is a caption) and
`bird.json` (an object with `caption` or `captions`, see `record.py`). With a table (`table.py`), each row has a picture
and a caption (`table_pairs.py`). Subfolders give the category only if the source says so. Pictures
without a caption and captions without a picture are listed too, so that ingest can count and name them; all other files
are counted by kind (`accounting.py`).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.picture_kinds import is_picture, may_be_picture, suffix_of
from flame_core.data.sources import ImageRef, Problem, RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.kept_columns import Records
from flame_core.data.sources.keys import folders_of, safe_key, stem_of
from flame_core.data.sources.listing import SourceFile
from flame_core.data.sources.listing_writer import listed_unit, write_listing
from flame_core.data.sources.manifest import SIDECARS, TEXTS, make_manifest
from flame_core.data.sources.picture_file import PICTURE_FILE
from flame_core.data.sources.record import RECORDS, RecordReader, read_object
from flame_core.data.sources.splits import in_split
from flame_core.data.sources.table import TABLES, Table, read_table
from flame_core.data.sources.table_pairs import TablePairs
from flame_core.data.sources.walk import Walk
from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError
from flame_core.files.regular_files import open_regular
from flame_core.names import expanded, printable
from flame_core.params import FolderSource
from flame_core.work import Unit, UnitRecord, WorkCache

_SIDE_FILE = re.compile(r"^\d{4,}(_stats\.json|\.parquet)$")  # written by img2dataset about its folder of that number


class Folder:
    """The source `kind: folder`."""

    def __init__(self, params: FolderSource, folder: Path, forgotten: Forgotten = NOTHING) -> None:
        self._forgotten = forgotten
        self._params = params
        self._folder = folder
        self._table = folder / _below(params.table, folder) if params.table else None
        fields = ("caption", "captions") if params.table is None else (params.caption_column,)
        self._reader = RecordReader(
            fields, params.language, params.group_field, params.licence, params.folders_are_categories
        )

    def pictures(self, raw: Path) -> Path:
        return raw if (raw / PICTURE_FILE).is_file() else self._folder

    def require_table(self) -> None:
        """Read the header and the first row of the table, if there is one.

        Raises:
            InputError: `download` will refuse it; names what it lacks.
        """
        if self._table:
            next(read_table(self._open(self._table, [])), None)

    def download(self, work: WorkCache) -> Unit:
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder; `path` of the source must name one")
        if self._table and not self._table.is_file():
            raise InputError(
                f"{self._table} does not exist; `table` of the source must name a file, relative to its `path`"
            )
        problems, unused = Problems(), Unused()
        names, unread = self._names(problems, unused)
        manifest = make_manifest(self._folder, [self._folder / name for name in names], problems, self._table)
        unread |= {name for name in set(names) - {entry.path for entry in manifest} if is_picture(name)}
        inputs = {
            "params": self._params.identity,
            "records": RECORDS,
            "files": [[entry.path, entry.size, entry.sha256] for entry in manifest],
            "problems": [[problem.file, problem.reason] for problem in problems.rows()],
            "unused": [asdict(group) for group in unused.rows()],
            "unread": sorted(map(printable, unread)),
            **self._forgotten.identity,
        }

        def write(folder: Path) -> UnitRecord:
            return self._list(folder, manifest, problems, unused, unread)

        return work.get({"kind": "folder", **inputs}, write)

    def _names(self, problems: Problems, unused: Unused) -> tuple[list[str], set[str]]:
        """Names of the files to read, and of unread files that may be pictures."""
        walk = Walk(self._folder, self._params.links == "anywhere", problems, unused)
        table = self._table and self._table.relative_to(self._folder).as_posix()
        if table in walk.failed:
            told = next((problem.detail for problem in problems if problem.file == table), "cannot be read")
            raise InputError(f"{self._table}: {told}")
        pictured = {stem_of(name) for name in walk.files if is_picture(name)}
        read: list[str] = []
        unread = {name for name in walk.failed if may_be_picture(name)}
        for name in walk.files:
            if name == table or is_picture(name):
                read.append(name)
            elif _SIDE_FILE.match(PurePosixPath(name).name) and stem_of(name) not in pictured:
                unused.add("side_file", name)
            elif suffix_of(name) in TABLES:
                unused.add("other_table", name)
            elif suffix_of(name) not in SIDECARS:
                unused.add("unsupported_suffix", name)
                unread |= {name} if may_be_picture(name) else set()
            elif table:
                unused.add("beside_table", name)
            else:
                read.append(name)
        if table and table not in read:  # outside, or hidden
            read = sorted([*read, table], key=lambda name: name.split("/"))
        return read, unread

    def _list(
        self, folder: Path, manifest: list[SourceFile], problems: Problems, unused: Unused, unread: set[str]
    ) -> UnitRecord:
        files = {entry.path: entry for entry in manifest}
        about: dict[str, Any] = {"kind": "folder"}
        root, kept = self._folder, manifest
        if self._table:
            entry = files.pop(self._table.relative_to(self._folder).as_posix())
            rows = TablePairs(
                self._open(self._table, problems), self._reader, self._folder, files, unread, folder, self._forgotten
            )
            pairs = rows.pairs(unused)
            if rows.left_out:
                about[FORGOTTEN] = len(rows.left_out)
            if rows.embedded:
                root, kept = folder, None
                about["table"] = asdict(entry)
        else:
            pairs = self._sidecar_pairs(files, problems, unused, unread)
        pairs = ((in_split(pair, self._params.split), records) for pair, records in pairs)
        record = write_listing(
            folder,
            root,
            pairs,
            about=about,
            problems=problems,
            unused=unused,
            manifest=kept,
            keep_columns=self._params.keep_columns,
            forgotten=self._forgotten,
        )
        return listed_unit(record)

    def _open(self, path: Path, problems: list[Problem]) -> Table:
        params = self._params
        needed = (params.image_column, params.caption_column, *filter(None, [params.group_field]), *params.keep_columns)
        return Table(
            path=path,
            picture_column=params.image_column,
            needed=needed,
            others=self._reader.fields,
            encoding=params.encoding,
            delimiter=params.delimiter,
            problems=problems,
            columns=params.columns,
        )

    def _image(self, entry: SourceFile) -> ImageRef:
        return ImageRef(self._folder / entry.path, 0, entry.size, entry.sha256)

    def _sidecar_pairs(
        self, files: Mapping[str, SourceFile], problems: list[Problem], unused: Unused, unread: set[str]
    ) -> Iterator[tuple[RawPair, Records]]:
        """One pair per picture, and one per sidecar without a picture, with their records."""
        stems: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"pictures": [], "sidecars": []})
        for name in sorted(files):
            stems[stem_of(name)]["sidecars" if suffix_of(name) in SIDECARS else "pictures"].append(name)
        in_place = {stem_of(name): name for name in sorted(unread, reverse=True)}
        for stem, names in sorted(stems.items()):
            texts: list[str] = []
            records: list[dict[str, Any]] = []
            for name in names["sidecars"]:
                try:
                    content = self._content(name)
                    if suffix_of(name) in TEXTS:
                        lines = decode_text(content, self._params.encoding).splitlines()
                        texts += [line for line in lines if line.strip()]
                    else:
                        records.append(read_object(content, self._params.encoding))
                except TextError as error:
                    reason = "damaged_text" if suffix_of(name) in TEXTS else "damaged_file"
                    problems.append(Problem(name, reason, str(error)))
            for name in names["pictures"] or [None]:
                image = self._image(files[name]) if name else None
                pair = self._reader.pair(
                    safe_key(stem), image, records, texts=texts, folders=folders_of(stem), unused=unused
                )
                yield pair if image else replace(pair, unread=in_place.get(stem)), records

    def _content(self, name: str) -> bytes:
        try:
            with open_regular(self._folder / name) as file:
                return file.read()
        except OSError as error:
            raise TextError(error.strerror or str(error)) from None


def _below(table: str, folder: Path) -> str:
    """`table` relative to `folder`, even if it is outside, so that no absolute path enters the listing."""
    place = expanded(table)
    return os.path.relpath(os.path.realpath(place), os.path.realpath(folder)) if place.is_absolute() else table
