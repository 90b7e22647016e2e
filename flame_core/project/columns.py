"""Finds the table with the captions of a folder's pictures, and which of its columns name pictures and hold captions.

Only the first rows of a table are read. A column names pictures if its cells are files of the folder, or contain
pictures; captions are in the column with a usual name, or else with the most words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import mean
from typing import Any

from flame_core.data.captions_text import is_blank, word_count
from flame_core.data.picture_kinds import suffix_of
from flame_core.data.sources.file_names import FileNames
from flame_core.data.sources.keys import stem_of
from flame_core.data.sources.record import RecordReader, answer_of, texts_in
from flame_core.data.sources.splits import part_of
from flame_core.data.sources.table import NAMED_TABLES, TABLES
from flame_core.errors import InputError, ParamsError
from flame_core.params.sources import Delimiter
from flame_core.project.table_heads import Head, head_of, names_file, read_head

CAPTION_NAMES = (
    "captions",
    "caption",
    "text",
    "texts",
    "description",
    "sentence",
    "sentences",
    "alt_text",
    "alt",
    "title",
)
_DOCUMENTS = 50  # that are read to see whether they are tables
_LARGEST_DOCUMENT = 1 << 28  # bytes: twice what COCO's captions take
_MANY = 20  # files of a kind in a folder: labels of a picture each, most likely
_LEAST_NAMED = 0.05  # share of rows that must name a picture
_ABOUT = {"lemma", "attribution", "attributions", "credits", "licence", "license", "licenses", "readme"}
_ANNOTATIONS = ("annotations", "captions")
_ADDRESS = ("http://", "https://")


@dataclass(frozen=True)
class Columns:
    """A table and what was chosen in it; `unread` columns hold texts too, and no source reads them.

    The columns of a table without a header are `headless`. `others` are further tables with captions of these pictures.
    `mixed` counts lines among the first ones that are UTF-8, although `encoding` is another since some lines are not.
    """

    table: Path
    image: str
    caption: str
    delimiter: Delimiter | None
    encoding: str
    unread: tuple[str, ...] = ()
    mixed: int = 0
    headless: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A table that names pictures in a column, in a share of its rows; `texts` is the column of their captions."""

    path: Path
    head: Head
    column: str
    share: float
    texts: str | None


def tables_among(folder: Path, names: Iterable[str]) -> list[Path]:
    """Tables among the files of a folder, or else beside it (`_beside`); those nearest to its root first."""
    inside = sorted((name for name in names if Path(name).suffix.lower() in TABLES), key=lambda n: (n.count("/"), n))
    if inside:
        return [folder / name for name in inside]
    return sorted(_beside(folder, TABLES))


def documents_among(folder: Path, names: Iterable[str], pictured: Collection[str]) -> list[Path]:
    """Files that may be tables, although others of their kind are the captions of one picture.

    Those come first that are few of their kind in a folder, then those nearest to the root, then short names. If there
    are none inside, those beside the folder are taken (`_beside`). Large ones are left out, since they are read as a
    whole.

    Args:
        folder: of the pictures.
        names: of its files.
        pictured: stems of its pictures; what has one of them belongs to that picture.
    """
    kinds = set(NAMED_TABLES) - set(TABLES)
    own = [name for name in names if suffix_of(name) in kinds and stem_of(name) not in pictured]
    alike = Counter((PurePosixPath(name).parent, suffix_of(name)) for name in own)

    def order(name: str) -> tuple[bool, int, int, str]:
        many = alike[PurePosixPath(name).parent, suffix_of(name)] > _MANY
        return many, name.count("/"), len(name), name

    inside = [folder / name for name in sorted(own, key=order)]
    found = inside or sorted(_beside(folder, kinds), key=lambda path: (len(path.name), path.name))
    return [path for path in found[:_DOCUMENTS] if path.stat().st_size <= _LARGEST_DOCUMENT]


def _beside(folder: Path, kinds: Collection[str]) -> list[Path]:
    """Files of these kinds beside a folder, or else in a folder of annotations beside it, as in COCO."""
    above = folder.resolve().parent
    for place in (above, *(above / name for name in _ANNOTATIONS)):
        there = place.iterdir() if place.is_dir() else ()
        if found := [path for path in there if path.suffix.lower() in kinds and path.is_file()]:
            return found
    return []


def choose_columns(
    tables: Sequence[Path], folder: Path, pictures: Sequence[str], image: str | None = None, caption: str | None = None
) -> Columns | None:
    """The table whose rows name pictures of the folder, with its columns; None if no table names any.

    Of several, those with captions come first, then those that are not for tests, then those that name the most.

    Args:
        tables: those to choose from.
        folder: of the pictures.
        pictures: their names, relative to the folder.
        image: a column that a person named.
        caption: the same.

    Raises:
        InputError: no table that names the pictures has a column of captions, or a header.
        ParamsError: a named column is not there.
    """
    files = FileNames(folder, pictures)
    found = [_found(path, head, files, image, caption) for path in tables if (head := read_head(path, files, caption))]
    named = [each for each in found if each and (each.share >= _LEAST_NAMED or image is not None)]
    if not named:
        return None
    most = max(each.share for each in named)
    first, *others = sorted(
        (each for each in named if each.share >= most / 2),
        key=lambda each: (each.texts is None, _comes_late(each.path), -each.share),
    )
    path, head, column, texts = first.path, first.head, first.column, first.texts
    if files.find(column):
        raise InputError(f"{path} has no header: its first line must name the columns, such as image,caption")
    for given, option in ((image, "--image-column"), (caption, "--caption-column")):
        if given is not None and given not in head.names:
            raise ParamsError(f"{option}: {path} has no column {given!r}; it has {', '.join(head.names)}")
    if texts is None:
        columns = ", ".join(name for name in head.names if name != column) or "no other column"
        raise InputError(
            f"{path} names pictures in the column {column!r}, and which column has their captions is not clear "
            f"({columns}): name it with --caption-column"
        )
    unread = _unread(head, column, texts)
    own = tuple(head.names) if head.headless else ()
    more = tuple(each.path for each in others if each.texts is not None)
    return Columns(path, column, texts, head.delimiter, head.encoding, unread, head.mixed, own, more)


def _found(path: Path, head: Head, files: FileNames, image: str | None, caption: str | None) -> _Found | None:
    if not head.rows:
        return None
    column, share = _pictured(head, files, image)
    if path.suffix.lower() in (".txt", ".token") and not mean(names_file(row.get(column)) for row in head.rows) > 0.5:
        return None  # a README that mentions a picture
    if files.find(column):
        return _Found(path, head, column, share, None)
    texts = (caption if caption in head.names else None) if caption else _captioned(head, column)
    return _Found(path, head, column, share, texts)


def _comes_late(table: Path) -> bool:
    """Whether a table's name says that it is not for training, or that its texts are no captions as written."""
    words = re.findall("[a-z]+", table.name.lower())
    return not _ABOUT.isdisjoint(words) or any(part_of(word) not in (None, "train") for word in words)


def nearly_named(tables: Iterable[Path], pictures: Sequence[str], *, files_only: bool = False) -> str:
    """What a table calls a picture whose name it says with another folder, suffix or case, for people; or nothing.

    `files_only` leaves out cells that may be anything else, such as the name of a class.
    """
    files = FileNames(Path(), pictures)
    for path in tables:
        head = read_head(path)
        for row in head.rows if head else ():
            for name, cell in row.items():
                if not isinstance(cell, str) or (files_only and (not names_file(cell) or files.find(cell))):
                    continue
                if alike := files.alike(cell):
                    return f"{path.name} has {cell[:200]!r} in its column {name!r} for {alike!r}"
    return ""


def lists_addresses(tables: Iterable[Path]) -> Path | None:
    """The first of these tables that holds addresses of the web in most of its rows, and no names of pictures."""
    for path in tables:
        head = read_head(path)
        if not head or not head.rows:
            continue
        cells = [[str(row.get(name)).strip().lower() for row in head.rows] for name in head.names]
        addresses = [[cell.startswith(_ADDRESS) for cell in own] for own in cells]
        files = [list(map(names_file, own)) for own in cells]
        if any(mean(own) > 0.5 for own in addresses) and not any(mean(own) > 0.5 for own in files):
            return path
    return None


def caption_field(records: Sequence[Mapping[str, Any]]) -> str | None:
    """The field of JSON objects that holds captions; None if none seems to."""
    return _captioned(head_of(records), "")


def unread_fields(records: Sequence[Mapping[str, Any]], captions: str) -> tuple[str, ...]:
    """Fields of JSON objects that hold texts, beside that of the captions, and that no source reads."""
    return _unread(head_of(records), "", captions)


def _unread(head: Head, picture_column: str, captions: str) -> tuple[str, ...]:
    read = RecordReader((captions,), "en", None, None).fields
    return tuple(name for name in _worded(head, picture_column) if name not in read)


def _pictured(head: Head, files: FileNames, given: str | None) -> tuple[str, float]:
    """The column that names or contains the most pictures, and the share of rows in which it does."""
    names = [name for name in head.names if name == "image" or not head.by_name]
    shares = {name: mean(_is_picture(row.get(name), files) for row in head.rows) for name in names}
    if given is not None:
        return given, shares.get(given, 0.0)
    return max(shares.items(), key=lambda item: item[1])


def _is_picture(value: Any, files: FileNames) -> bool:
    match value:
        case str():
            return files.find(value) is not None
        case bytes():
            return len(value) > 100
        case {"bytes": bytes(content)}:
            return len(content) > 100
        case [only]:
            return _is_picture(only, files)
        case _:
            return False


def _captioned(head: Head, picture_column: str) -> str | None:
    spoken = _spoken(head, picture_column)
    for usual in CAPTION_NAMES:
        for name in spoken:
            if name.strip().lower() == usual:
                return name
    wordy = _worded(head, picture_column)
    return max(wordy, key=wordy.__getitem__) if wordy else None


def _spoken(head: Head, picture_column: str) -> dict[str, float]:
    """The columns that hold texts, and the mean number of their words."""
    words = {name: _words([row.get(name) for row in head.rows]) for name in head.names if name != picture_column}
    return {name: count for name, count in words.items() if count}


def _worded(head: Head, picture_column: str) -> dict[str, float]:
    """Those of several words."""
    return {name: count for name, count in _spoken(head, picture_column).items() if count >= 2}


def _words(values: Iterable[Any]) -> float:
    """The mean number of words of the texts in cells; 0 if there are none, or if they are numbers."""
    plain = (value for value in values if answer_of(value) is None)  # conversations are not captions unless named
    own = (texts for value in plain for texts in texts_in(value, "en").values())
    texts = [text for some in own for text in some if not is_blank(text)]
    return mean(map(word_count, texts)) if any(not is_number(text) for text in texts) else 0.0


def is_number(text: str) -> bool:
    """Whether a text is a number, a date, or the like."""
    try:
        float(text)
    except ValueError:
        return not any(map(str.isalpha, text))
    return True
