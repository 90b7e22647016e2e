"""Reads rows of a delimited text table (`.csv`, `.tsv`, or a text that is named as one) strictly.

The delimiter is given in params, or is the first of `,`, `;`, tab and `|` with which the header has the needed columns.
A row must have as many fields as the header, and quotes must enclose whole fields. An unclosed quote would swallow all
following lines, so only its own line is dropped, and reading continues at the next line.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from flame_core.data.picture_kinds import is_picture
from flame_core.data.sources.file_names import without_number
from flame_core.data.sources.table import LONGEST, Row, Table
from flame_core.data.text_files import TextError, text_lines, undecoded
from flame_core.errors import InputError
from flame_core.params.sources import Delimiter

DELIMITERS: dict[Delimiter, str] = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_LONGEST_RECORD = 1 << 24  # characters
_REREAD = 1 << 28  # characters that may be read again because of unclosed quotes
_FIRST = 200  # lines that show the delimiter
_PER_LINE = 64  # overhead of reading a line, in characters


class _Lines:
    """Lines that can be rewound to the second line of the current record."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._record: list[str] = []
        self._size = 0
        self._reread = 0
        self.number = 0  # of the last line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self._record.append(line)
        self._size += len(line)
        if self._size > _LONGEST_RECORD:
            raise csv.Error(f"more than {_LONGEST_RECORD:,} characters in a row")
        return line

    def begin(self) -> None:
        """Start a record with the next line."""
        self._record, self._size = [], 0

    def back(self) -> bool:
        """Rewind to the second line of the record; False if too much was read again already."""
        again = self._record[1:]
        self._again.extendleft(reversed(again))
        self.number -= len(again)
        self._reread += sum(len(line) + _PER_LINE for line in again)
        return self._reread <= _REREAD


def delimited_rows(table: Table) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of each row below the header."""
    yield from _strictly(table, _rows(table))


def headless_rows(table: Table, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The same of a table whose first line is a row, with the columns that a person named.

    If the delimiter is not given, it is the one with which most of the first lines have as many fields. Between tabs,
    quotes are characters like others, as CC3M, CC12M and Flickr8k are written.
    """
    if len(set(columns)) < len(columns):
        raise InputError("`columns` of the source names a column twice")
    table.require(columns, " (`columns` of the source)")
    yield from _strictly(table, _headless(table, columns))


def _headless(table: Table, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    _require_decoded(table, next(text_lines(table.path, table.encoding), ""))
    delimiter = table.delimiter or _delimiter_of(table, len(columns))
    lines = text_lines(table.path, table.encoding)
    if delimiter == "\t":
        yield from _unquoted(table, lines, columns)
    else:
        yield from _records(table, _Lines(lines), delimiter, columns, "`columns` names")


def _delimiter_of(table: Table, columns: int) -> Delimiter:
    """A tab in a .tsv, else the delimiter that makes so many fields of most of the first lines."""
    kind = table.shown.name.lower().removesuffix(".gz")
    if kind.endswith(".tsv"):
        return "\t"
    lines = [line.rstrip("\r\n") for line in islice(text_lines(table.path, table.encoding), _FIRST) if line.strip()]
    likely: list[Delimiter] = [*DELIMITERS] if kind.endswith(".csv") else ["\t", *DELIMITERS]

    def fitting(delimiter: Delimiter) -> int:
        fields = (line.split(delimiter) if delimiter == "\t" else _fields(line, delimiter) for line in lines)
        return sum(len(each) == columns for each in fields)

    return max(likely, key=fitting)


def _unquoted(table: Table, lines: Iterator[str], columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    places = {name: columns.index(name) for name in table.wanted if name in columns}
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line:
            continue
        cells = line.split("\t")
        if undecoded(line):
            table.damaged(f"row {number}", f"is not {table.encoding.upper()}")
        elif len(cells) != len(columns):
            table.damaged(f"row {number}", f"has {len(cells)} fields, and `columns` names {len(columns)}")
        elif max(map(len, cells)) > LONGEST:
            table.damaged(f"row {number}", f"has {len(line):,} characters")
        else:
            yield number, {name: cells[place] for name, place in places.items()}


def _strictly(table: Table, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    limit = csv.field_size_limit(LONGEST)
    try:
        yield from rows
    except (TextError, csv.Error) as error:
        table.refuse(f"cannot be read: {error}")
    finally:
        csv.field_size_limit(limit)


def _rows(table: Table) -> Iterator[tuple[int, Row]]:
    lines = _Lines(text_lines(table.path, table.encoding))
    head = next((line for line in lines if line.strip()), "")
    _require_decoded(table, head)
    if undecoded(head):
        table.refuse(f"has a header that {table.not_decoded}")
    delimiter, columns = _header(table, head)
    yield from _records(table, lines, delimiter, columns, "the header")


def _require_decoded(table: Table, line: str) -> None:
    if "\0" in line:
        table.refuse("looks like UTF-16 without a byte order mark; name it in `encoding`: utf-16-le")


def _records(
    table: Table, lines: _Lines, delimiter: str, columns: Sequence[str], named: str
) -> Iterator[tuple[int, Row]]:
    """The rows of the remaining lines; `named` says who named the columns."""
    places = {name: columns.index(name) for name in table.wanted if name in columns}
    for name in places:
        if columns.count(name) > 1:
            table.refuse(f"has {columns.count(name)} columns {name!r}; rename those that are not meant")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while True:
        lines.begin()
        first = lines.number + 1
        try:
            fields = next(reader)
            wrong = _wrong(fields, columns, table, named)
        except StopIteration:
            return
        except csv.Error as error:
            fields, wrong = [], f"cannot be read: {error}"
        if not fields and not wrong:  # a blank line
            continue
        number += 1
        if wrong is None:
            yield number, {name: fields[place] for name, place in places.items()}
            continue
        table.damaged(f"row {number} (line {first})", wrong)
        if lines.number > first and not lines.back():
            table.refuse(f"has too many quotes that are not closed, the last in line {first}")


def _header(table: Table, head: str) -> tuple[Delimiter, list[str]]:
    """The delimiter and the names of the columns."""
    candidates: list[Delimiter] = [table.delimiter] if table.delimiter else list(DELIMITERS)
    found: dict[Delimiter, list[str]] = {delimiter: _fields(head, delimiter) for delimiter in candidates}
    for delimiter, columns in found.items():
        if set(table.needed) <= set(columns):
            return delimiter, columns
    likeliest = max(found, key=lambda one: len(found[one]))
    separated = f" (separated by {DELIMITERS[likeliest]})" if head else ""
    bare = any(is_picture(without_number(name.strip())) for name in found[likeliest]) and table.picture_column
    named = "; its first line is a row already: name its columns, `columns: [image, caption]`" if bare else ""
    table.require(found[likeliest], separated + named)
    raise AssertionError("a header with all needed columns was not taken")


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:  # a quote that is not valid with this delimiter
        return [line.strip()]


def _wrong(fields: Sequence[str], columns: Sequence[str], table: Table, named: str) -> str | None:
    """Why a row is left out; None if it is good."""
    if not fields:
        return None
    if len(fields) != len(columns):
        return f"has {len(fields)} fields and {named} {len(columns)}; a field that holds the separator needs quotes"
    return table.not_decoded if any(undecoded(field) for field in fields) else None
