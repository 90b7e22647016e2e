"""Reads rows of a table of captions, with only the wanted columns.

A `.csv`, `.tsv`, `.jsonl` or `.parquet` is a table wherever it lies. A `.json`, and a delimited text called `.txt` or
`.token`, may as well belong to one picture, so they are tables only where params name them.

A row that cannot be read completely is a problem `damaged_row` with its number, never a row with missing values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from flame_core.data.sources import Problem
from flame_core.data.sources.record import read_object
from flame_core.data.text_files import TextError, text_lines, undecoded
from flame_core.errors import InputError
from flame_core.names import printable

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
TEXTS = (".txt", ".token")  # delimited
NAMED_TABLES = (*TABLES, ".json", *TEXTS)
LONGEST = 1 << 20  # characters of a cell
Row = dict[str, Any]
Delimiter = Literal[",", ";", "\t", "|"]


@dataclass(frozen=True)
class Table:
    """A table to read: `needed` columns must exist, `others` are optional.

    The picture's column, if there is one, may hold bytes, and the text column, if there is one, only texts. Messages
    call the file `named`, if it was packed. `columns` are those of a delimited text without a header.
    """

    path: Path
    picture_column: str | None
    needed: tuple[str, ...]
    others: tuple[str, ...]
    encoding: str
    delimiter: Delimiter | None
    problems: list[Problem]
    named: Path | None = None
    text_column: str | None = None
    columns: Sequence[str] | None = None

    @property
    def shown(self) -> Path:
        return self.named or self.path

    @property
    def wanted(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.needed, *self.others)))

    def require(self, columns: Collection[str], hint: str = "") -> None:
        """Refuse a table without a needed column."""
        for column in self.needed:
            if column not in columns:
                has = ", ".join(_shown(name) for name in sorted(columns)[:30]) or "no rows"
                raise InputError(f"{self.shown} has no column {column!r}; it has {has}{hint}")

    def damaged(self, row: str, why: str) -> None:
        """Record a row that is left out."""
        self.problems.append(Problem(printable(self.shown.name), "damaged_row", f"{row} {why}"))

    def refuse(self, why: str) -> NoReturn:
        raise InputError(f"{self.shown} {why}")

    @property
    def not_decoded(self) -> str:
        return f"is not {self.encoding}; `encoding` may name another, such as cp1252"


def text_size(value: Any) -> int:
    """How many characters a value has, including its lists and mappings."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(text_size, value))
        case dict():
            return sum(map(text_size, value.values()))
        case _:
            return 0


def _shown(name: str) -> str:
    """A column's name, in quotes if it would be hard to see."""
    plain = name.isprintable() and name == name.strip() and name and "," not in name
    return name[:100] if plain else repr(name[:100])


def read_table(table: Table) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of each row of a table; unreadable rows are recorded in `table.problems`.

    Raises:
        InputError: the file is of another kind, damaged as a whole, or lacks a needed column.
    """
    suffix = table.path.suffix.lower()
    if table.columns is not None and suffix not in (".csv", ".tsv", *TEXTS):
        table.refuse("names its columns itself: leave out `columns`")
    match suffix:
        case ".csv" | ".tsv" | ".txt" | ".token":
            from flame_core.data.sources.delimited import delimited_rows, headless_rows

            yield from delimited_rows(table) if table.columns is None else headless_rows(table, table.columns)
        case ".jsonl":
            yield from _lines(table)
        case ".json":
            from flame_core.data.sources.json_rows import json_rows

            yield from json_rows(table)
        case ".parquet":
            from flame_core.data.sources.parquet_rows import parquet_rows

            yield from parquet_rows(table)
        case _:
            kind = suffix or "without a suffix"
            table.refuse(f"must be {', '.join(NAMED_TABLES)}, not {kind}; unpack a compressed table first")


def _lines(table: Table) -> Iterator[tuple[int, Row]]:
    columns: set[str] = set()
    try:
        for number, line in enumerate(text_lines(table.path, table.encoding), start=1):
            if not line.strip():
                continue
            if undecoded(line):
                table.damaged(f"line {number}", table.not_decoded)
                continue
            try:
                record = read_object(line)
            except TextError as error:
                table.damaged(f"line {number}", f"is {error}")
                continue
            columns |= record.keys()
            row = {name: record[name] for name in table.wanted if name in record}
            if (size := text_size(row)) > LONGEST:
                table.damaged(f"line {number}", f"has {size:,} characters")
                continue
            yield number, row
    except TextError as error:
        table.refuse(f"cannot be read: {error}")
    table.require(columns)
