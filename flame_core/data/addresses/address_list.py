"""Reads lists of addresses as people have them: .csv, .tsv, .parquet, .jsonl and .json, each also with .gz.

CC3M's and CC12M's files are .tsv without a header and without quotes: `columns` names theirs. A row that cannot be read
costs only itself and becomes a problem of the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core.data.addresses.attempts import address_key
from flame_core.data.addresses.sorted_list import Address
from flame_core.data.sources import Problem
from flame_core.data.sources.listing_writer import plain
from flame_core.data.sources.table import DELIMITED, Row, Table, read_table
from flame_core.data.sources.table_files import kind_of_table, unpacked
from flame_core.data.text_files import text_lines
from flame_core.digest import canonical_json
from flame_core.params import UrlsSource

LIST = "list of addresses"


@dataclass(frozen=True)
class ListReader:
    """Reads the files of one source; `scratch` is a folder for unpacked ones."""

    params: UrlsSource
    problems: list[Problem]
    scratch: Path

    def addresses(self, files: list[Path]) -> Iterator[Address]:
        """The rows of all files that have an address.

        Raises:
            InputError: a file is damaged, or lacks a column.
        """
        for path in files:
            with unpacked(path, self.scratch) as place:
                for number, row in self._rows(place, path):
                    url = row.get(self.params.url_column)
                    if not isinstance(url, str) or not url.strip():
                        self.problems.append(Problem(path.name, "damaged_row", f"row {number} has no address"))
                        continue
                    yield self._address(plain(url.strip()), row)

    def _address(self, url: str, row: Row) -> Address:
        params = self.params
        record: dict[str, Any] = {"captions": row.get(params.caption_column)}
        if params.licence_column:
            record["licence"] = row.get(params.licence_column)
        if params.keep_columns:
            record["columns"] = {name: row.get(name) for name in params.keep_columns}

        def digest(column: str | None) -> str | None:
            value = row.get(column) if column else None
            return value.strip().lower() or None if isinstance(value, str) else None

        text = plain(canonical_json(_finite(record)))
        return Address(
            address_key(url), url, digest(params.sha256_column), digest(params.md5_column), f"[{text}]"
        )  # fmt: skip

    def _rows(self, place: Path, path: Path) -> Iterator[tuple[int, Row]]:
        params = self.params
        delimited = kind_of_table(path) in DELIMITED
        table = Table(
            path=place,
            picture_column=None,
            needed=params.needed_columns,
            others=(),
            encoding="utf-8",
            delimiter="\t" if kind_of_table(path) == ".tsv" else None,
            problems=self.problems,
            named=path,
            text_column=params.url_column,
            columns=params.columns if delimited else None,
        )
        if delimited and params.columns is None:
            _require_header(table)
        yield from read_table(table)


def _require_header(table: Table) -> None:
    """Say what to write if the first line is a row already."""
    head = next(text_lines(table.path), "").rstrip("\r\n")
    cells = head.split("\t" if table.delimiter == "\t" or "\t" in head else ",")
    if any(cell.strip('"').startswith(("http://", "https://")) for cell in cells):
        url, caption = table.needed[:2]
        names = ", ".join(url if "://" in cell else caption for cell in cells[:2])
        table.refuse(f"has no header: its first line is a row already. Name its columns in the source: [{names}]")


def _finite(value: Any) -> Any:
    """`value` with None in place of numbers that JSON cannot hold."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case dict():
            return {str(name): _finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case str() | int() | float() | bool() | None:
            return value
        case _:
            return str(value)
