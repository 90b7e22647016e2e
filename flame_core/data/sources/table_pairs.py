"""The pairs of a folder whose captions are in one table: one per picture in the folder or in the table.

Rows of the same picture are combined. A row names a file (`file_names.py`) or contains the picture: its bytes, or
Hugging Face's `{bytes, path}`; a list of one of these counts as it. Pictures in the table are written to a file beside
the list of pairs; then the folder's pictures are copied there too, so that a source has all its pictures in one place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.data.captions_text import is_blank
from flame_core.data.forgotten import NOTHING, Forgotten
from flame_core.data.sources import ImageRef, RawPair
from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.file_names import FileNames, without_number
from flame_core.data.sources.kept_columns import Records
from flame_core.data.sources.keys import folders_of, safe_key, stem_of
from flame_core.data.sources.listing import SourceFile
from flame_core.data.sources.picture_file import PictureFile
from flame_core.data.sources.record import RecordReader, texts_in
from flame_core.data.sources.table import Row, Table, read_table
from flame_core.digest import bytes_sha256

_LONGEST_NAME = 4096  # bytes


@dataclass
class _Picture:
    """A picture named by rows: `image` is its place if the table contains it and it is not forgotten, else None."""

    name: str
    image: ImageRef | None
    rows: list[Row] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)  # numbers of the rows without a caption


class TablePairs:
    """Reads the rows of a table; `folder` has the pictures `files`, and `unread` files that may be pictures.

    Pictures in the table are written to the folder `kept`.

    Raises:
        InputError: the table cannot be used.
    """

    def __init__(
        self,
        table: Table,
        reader: RecordReader,
        folder: Path,
        files: Mapping[str, SourceFile],
        unread: Collection[str],
        kept: Path,
        forgotten: Forgotten = NOTHING,
    ) -> None:
        self._forgotten = forgotten
        self.left_out: set[str] = set()  # sha256 of pictures in the table that are forgotten
        self._table = table
        self._reader = reader
        self._folder = folder
        self._files = files
        known = {name for name, file in files.items() if not forgotten.names(safe_key(stem_of(name)), file.sha256)}
        self._names, self._unread = FileNames(folder, files, known), FileNames(folder, unread)
        self._kept = PictureFile(kept)
        self._on_disk: dict[str, _Picture] = {}  # by the name of the file
        self._lost: dict[str, _Picture] = {}  # by a name that matches no file
        self._embedded: dict[str, _Picture] = {}  # by sha256
        for number, row in read_table(table):
            name, content = _picture(row.pop(table.picture_column or "", None))
            if content:
                name = name or f"{table.path.stem}/{number:08d}.bin"
                if forgotten.names_bytes(content):  # nobody else gets its key
                    sha256 = bytes_sha256(content)
                    self.left_out.add(sha256)
                    self._embedded.setdefault(sha256, _Picture(name, None))
                    continue
                image = self._kept.keep(content)
                picture = self._embedded.setdefault(image.sha256, _Picture(name, image))
            elif name is None:
                table.damaged(f"row {number}", "names no picture")
                continue
            elif found := self._names.find(name):
                picture = self._on_disk.setdefault(found, _Picture(found, None))
            else:
                name = without_number(name)
                picture = self._lost.setdefault(name, _Picture(name, None))
            picture.rows.append(row)
            if not any(_speaks(row.get(column)) for column in reader.caption_fields):
                picture.silent.append(number)

    @property
    def embedded(self) -> bool:
        """Whether the pictures are in `kept` and not in the folder."""
        return any(picture.image for picture in self._embedded.values())

    def pairs(self, unused: Unused) -> Iterator[tuple[RawPair, Records]]:
        """All pairs and their rows: files and missing files sorted by name, then pictures in the table in its order."""
        for name in sorted({*self._files, *self._lost}):
            if name in self._files:
                picture = self._on_disk.get(name) or _Picture(name, None)
                yield self._pair(stem_of(name), self._image(self._files[name]), picture, unused), _filled(picture.rows)
            else:
                stem = stem_of(name.strip())
                picture = self._lost[name]
                pair = self._pair(stem, None, picture, unused, self._names.why_missing(name))
                yield replace(pair, unread=self._unread.find(name)), _filled(picture.rows)
        used: set[str] = set()
        for sha256, picture in self._embedded.items():
            stem = stem_of(picture.name)
            if picture.image is not None:
                key = f"{stem}-{sha256[:12]}" if stem in used else stem
                yield self._pair(key, picture.image, picture, unused), _filled(picture.rows)
            used.add(stem)

    def _image(self, entry: SourceFile) -> ImageRef:
        image = ImageRef(self._folder / entry.path, 0, entry.size, entry.sha256)
        copied = self.embedded and entry.sha256 not in self._forgotten.sha256
        return self._kept.keep(image.read()) if copied else image

    def _pair(
        self, stem: str, image: ImageRef | None, picture: _Picture, unused: Unused, missing: str | None = None
    ) -> RawPair:
        if len(picture.silent) < len(picture.rows):  # ingest drops a picture without any caption, by its key
            for number in picture.silent:
                self._table.damaged(f"row {number}", "has no caption, and other rows of its picture have one")
        folders = folders_of(stem)
        return self._reader.pair(safe_key(stem), image, picture.rows, folders=folders, missing=missing, unused=unused)


def _filled(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of a picture; of several, without blank cells, so that the first one that says something counts."""
    if len(rows) < 2:
        return rows
    return [{name: value for name, value in row.items() if not isinstance(value, str) or value.strip()} for row in rows]


def _speaks(value: Any) -> bool:
    """Whether a value of the caption field has any text that cleaning leaves."""
    return not all(is_blank(text) for texts in texts_in(value, "en").values() for text in texts)


def _picture(value: Any) -> tuple[str | None, bytes | None]:
    """(name of a file, bytes of a picture) in a cell."""
    match value:
        case str():
            return value if value.strip() else None, None
        case bytes():
            return (value.decode(), None) if _is_name(value) else (None, value)
        case {"bytes": bytes(content), **others} if content:
            path = others.get("path")
            name = PurePosixPath(path.replace("\\", "/")) if isinstance(path, str) and path.strip() else None
            return name and (name.name if name.is_absolute() else name.as_posix()), content
        case {"path": str(path)}:
            return _picture(path)
        case [only]:
            return _picture(only)
        case _:
            return None, None


def _is_name(content: bytes) -> bool:
    """Whether bytes are text that may name a file, and not a picture (an SVG is text too)."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    return len(content) <= _LONGEST_NAME and text.isprintable() and not text.lstrip().startswith("<")
