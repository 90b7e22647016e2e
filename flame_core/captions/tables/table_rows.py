"""Rows of the tables of a `captioner: table`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flame_core.captions.tables.places import table_place
from flame_core.captions.tables.rows import Counts, Match, NamedText, said_of
from flame_core.data.shards import INDEX, Index
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Problems
from flame_core.data.sources.table import Table, read_table
from flame_core.data.sources.table_files import beginning, kind_of_table, table_files, unpacked
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.names import printable, shown
from flame_core.params import Source, TableCaptioner
from flame_core.params.captions import NAMING_SOURCES

_TABLE = "table of captions"
_LOOKED_AT = 1000  # rows of a table, before anything runs


class TableRows:
    """The rows of tables that params name.

    Raises:
        InputError: a table is missing or damaged.
    """

    def __init__(
        self, params: TableCaptioner, sources: Mapping[str, Source], layout: Layout, sha256: Callable[[Path], str]
    ) -> None:
        self._params = params
        self.match: Match = params.match
        self.language, self.max_chars = params.language, params.max_caption_chars
        self._files = [
            (source, file) for source, path in params.tables for file in _readable(table_place(layout, path))
        ]
        self.sha256 = {_label(source, path): sha256(path) for source, path in self._files}
        self.inputs = {
            "tables": self.sha256,
            "params": params.model_dump(exclude={"path"}),
            "sources": _places(sources) if params.match in NAMING_SOURCES else {},
        }

    def read(self, scratch: Path, problems: list[Problem]) -> Iterator[tuple[str | None, Iterator[NamedText]]]:
        """The rows of each file, and the source that it is about."""
        for source, path in self._files:
            yield source, self._rows(path, scratch, problems)

    def _rows(self, path: Path, scratch: Path, problems: list[Problem]) -> Iterator[NamedText]:
        column = self._params.name_column
        with unpacked(path, scratch) as place:
            table = _table(self._params, place, path, problems)
            for number, row in read_table(table):
                if (name := _name(row.get(column))) is None:
                    table.damaged(f"row {number}", f"has no text in the column {column!r}")
                else:
                    yield name, row.get(self._params.caption_column)

    def nothing(self, index: Index, counts: Counts, first: str, problems: Problems) -> str:
        """Why no sample has a text; `first` is what the first row calls its sample."""
        chosen = self._params
        what = " and ".join(path for _, path in chosen.tables)
        if not counts["rows"]:
            said = said_of(problems.rows())
            return f"{what} has no row that can be read{f': {said}' if said else ''}"
        if counts["unmatched rows"] < counts["rows"]:
            return (
                f"{what} has no text in {chosen.language!r} for any sample: see `caption_column` "
                f"({chosen.caption_column}) and `language`"
            )
        sample = next(iter(index))
        known = f"a sha256 is {sample.sha256}" if chosen.match == "sha256" else f"keys are like {sample.key}"
        means = f", taken for {_MEANS[chosen.match]}" if chosen.match in _MEANS else ""
        return (
            f"none of the {counts['rows']:,} rows of {what} is about a sample of {INDEX}, whose {known}: the first has "
            f"{shown(first)} in the column {chosen.name_column!r}{means}; see `match` and `match_column`"
        )


def require_columns(params: TableCaptioner, place: Path) -> None:
    """Look at the beginning of a table, or of those in a folder.

    Raises:
        InputError: it is missing or damaged, or lacks a column.
    """
    for path in _readable(place):
        with TemporaryDirectory() as scratch, beginning(path, Path(scratch)) as file:
            rows = [row for _, row in islice(read_table(_table(params, file, path, [])), _LOOKED_AT)] if file else []
        for column in (params.name_column, params.caption_column):
            if rows and not any(column in row for row in rows):
                raise InputError(f"{path}: none of its first {len(rows):,} rows has {column!r}")


def _readable(place: Path) -> list[Path]:
    """The files of a table.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    files = table_files(place, _TABLE)
    filled = []
    for path in files:
        try:
            with path.open("rb") as file:
                filled += [path] if file.read(1) else []
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return filled or files  # a part of a folder may be empty


_MEANS = {
    "url": "an address as a source of kind urls lists it",
    "image": "a file below `path` of a source (birds/1.jpg), or a tar and a member of it (00000/000000012.jpg)",
}


def _table(params: TableCaptioner, place: Path, path: Path, problems: list[Problem]) -> Table:
    """How to read a file, which is at `place` if it was packed."""
    return Table(
        path=place,
        picture_column=None,
        needed=(params.name_column, params.caption_column),
        others=(),
        encoding=params.encoding,
        delimiter="\t" if kind_of_table(path) == ".tsv" else None,
        problems=problems,
        named=path,
    )


def _name(value: Any) -> str | None:
    """What a row calls its sample: a text, or a whole number as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _places(sources: Mapping[str, Source]) -> dict[str, list[str | None]]:
    """{source: its kind and path}, on which it depends what the names of its files mean."""
    return {name: [source.kind, getattr(source, "path", None)] for name, source in sources.items()}


def _label(source: str | None, path: Path) -> str:
    name = printable(path.name)
    return name if source is None else f"{source}/{name}"
