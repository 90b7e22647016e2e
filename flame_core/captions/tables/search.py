"""Reads the tables of a `captioner: table`: the captions that they have for samples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flame_core.captions.tables.names import SampleNames
from flame_core.captions.tables.places import table_place
from flame_core.captions.tables.sorted_texts import SortedTexts
from flame_core.data.captions_text import clean_caption
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Problems
from flame_core.data.sources.listing_writer import plain
from flame_core.data.sources.record import texts_in
from flame_core.data.sources.table import Table, read_table
from flame_core.data.sources.table_files import beginning, kind_of_table, table_files, unpacked
from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.names import printable, shown
from flame_core.params import Source, TableCaptioner
from flame_core.params.captions import NAMING_SOURCES
from flame_core.verification import read_digests
from flame_core.work import UnitRecord, WorkCache

_TABLE = "table of captions"
_TEXTS, _ABOUT = "texts.parquet", "about.json"
_ROWS = 4096  # that are looked up at once
_SAID = 3  # rows that cannot be read, named in a warning
_LOOKED_AT = 1000  # rows of a table, before anything runs
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTexts:
    """The texts of a shard's samples: rows `start` to `stop` (not included) of a file, and a digest of them."""

    path: Path
    start: int
    stop: int
    sha256: str


@dataclass(frozen=True)
class FoundTexts:
    """What tables say of the samples.

    Attributes:
        shards: {shard: its texts}.
        tables: {file of the table: sha256}.
        counts: of texts, and of rows by what became of them.
    """

    shards: Mapping[str, ShardTexts]
    tables: Mapping[str, str]
    counts: Mapping[str, int]


def find_texts(key: str, params: TableCaptioner, sources: Mapping[str, Source], layout: Layout) -> FoundTexts:
    """The texts of all samples that the tables have one for; `key` is that of the captioner in params.

    Raises:
        InputError: a table is missing or damaged or lacks a column, or no row has a text for a sample.
    """
    try:
        files = [(source, file) for source, path in params.tables for file in _readable(table_place(layout, path))]
        tables = {_label(source, path): file_sha256(path) for source, path in files}
        inputs = {
            "unit": "texts",
            "tables": tables,
            "params": params.model_dump(exclude={"path"}),
            "sources": _places(sources) if params.match in NAMING_SOURCES else {},
            "index": read_digests(layout.shards)[INDEX],
        }
        search = _Search(params, files, sources, layout)
        unit = WorkCache(layout.work, "caption").get(inputs, search.write)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    about = json.loads(unit.file(_ABOUT).read_bytes())
    if about["unreadable"]:
        log.warning("%s: rows that cannot be read: %s", key, about["unreadable"])
    shards = {name: ShardTexts(unit.file(_TEXTS), *rows) for name, rows in about["shards"].items()}
    return FoundTexts(shards, tables, unit.record.counts)


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


@dataclass(frozen=True)
class _Search:
    params: TableCaptioner
    files: Sequence[tuple[str | None, Path]]
    sources: Mapping[str, Source]
    layout: Layout

    def write(self, folder: Path) -> UnitRecord:
        """The texts in the order of the shards, and what else is known about them."""
        index = read_index(self.layout.shards).in_order()
        names = SampleNames(index, self.params, self.sources, self.layout)
        problems, counts, first = Problems(), Counter[str](), ""
        with SortedTexts(folder, index) as texts:
            for source, path in self.files:
                rows = self._rows(path, folder, problems)
                while some := list(islice(rows, _ROWS)):
                    first = first or some[0][0]
                    counts["rows"] += len(some)
                    known = np.zeros(len(some), bool)
                    for places in names.places([name for name, _ in some], source):
                        known |= places >= 0
                        for row in np.flatnonzero(places >= 0).tolist():
                            counts.update(self._take(texts, int(places[row]), some[row][1]))
                    counts["unmatched rows"] += int(np.count_nonzero(~known))
            if not counts["texts"]:
                raise InputError(self._nothing(index, counts, first, problems))
            shards = texts.write(folder / _TEXTS)
            counts["texts"] -= texts.repeated
            counts["samples with a text"], counts["duplicate texts"] = texts.samples, texts.repeated
        write_json(folder / _ABOUT, {"shards": shards, "unreadable": _said(problems.rows())})
        counts["unreadable rows"] = sum(problem.count for problem in problems.rows())
        return UnitRecord({name: count for name, count in counts.items() if count})

    def _rows(self, path: Path, scratch: Path, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
        """(what it calls its sample, value of the caption column) of each row of a file."""
        column = self.params.name_column
        with unpacked(path, scratch) as place:
            table = _table(self.params, place, path, problems)
            for number, row in read_table(table):
                if (name := _name(row.get(column))) is None:
                    table.damaged(f"row {number}", f"has no text in the column {column!r}")
                else:
                    yield name, row.get(self.params.caption_column)

    def _take(self, texts: SortedTexts, place: int, value: Any) -> list[str]:
        """Keep the texts of a row; returns what to count."""
        chosen = self.params
        spoken = texts_in(value, chosen.language)
        own = [text for code, some in spoken.items() if _same(code, chosen.language) for text in some]
        cleaned = [each for text in own if (each := clean_caption(plain(text), chosen.max_caption_chars))[0]]
        for text, _ in cleaned:
            texts.add(place, text)
        cut = sum(cut for _, cut in cleaned)
        return ["texts"] * len(cleaned) + ["texts cut"] * cut if cleaned else ["rows without a text"]

    def _nothing(self, index: Index, counts: Counter[str], first: str, problems: Problems) -> str:
        """Why no sample has a text."""
        what = " and ".join(path for _, path in self.params.tables)
        chosen = self.params
        if not counts["rows"]:
            said = _said(problems.rows())
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


def _same(code: str, other: str) -> bool:
    """Whether two codes are of one language: zh_CN and zh-cn."""
    return code.replace("_", "-").lower() == other.replace("_", "-").lower()


def _places(sources: Mapping[str, Source]) -> dict[str, list[str | None]]:
    """{source: its kind and path}, on which it depends what the names of its files mean."""
    return {name: [source.kind, getattr(source, "path", None)] for name, source in sources.items()}


def _label(source: str | None, path: Path) -> str:
    name = printable(path.name)
    return name if source is None else f"{source}/{name}"


def _said(problems: Sequence[Problem]) -> str:
    """The first problems and the number of the others, for people."""
    said = "; ".join(f"{each.file}: {each.detail}" for each in problems[:_SAID])
    more = sum(each.count for each in problems[_SAID:])
    return f"{said}; and {more:,} more" if more else said
