"""Writes the list of a source's pairs (`listing.py`): from pairs, or from the lists of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.forgotten import FORGOTTEN, NOTHING, Forgotten
from flame_core.data.sources import Problem, RawPair
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.kept_columns import KeptColumns, Records, join_columns
from flame_core.data.sources.keys import safe_key, stem_of
from flame_core.data.sources.listing import (
    GROUP,
    MANIFEST,
    MISSING,
    PAIRS,
    SCHEMA,
    SOURCE,
    SourceFile,
    left_out,
    read_missing,
    read_source,
)
from flame_core.data.sources.picture_file import PICTURE_FILE
from flame_core.digest import canonical_json, write_json
from flame_core.files.row_groups import in_groups
from flame_core.work import UnitRecord

FEW_BYTES = 1 << 28  # of a source; one process lists them sooner than several have begun


def write_listing(
    folder: Path,
    pictures: Path,
    pairs: Iterable[tuple[RawPair, Records]],
    *,
    about: Mapping[str, Any],
    problems: list[Problem],
    unused: Unused | None = None,
    manifest: Iterable[SourceFile] | None = None,
    keep_columns: Sequence[str] = (),
    forgotten: Forgotten = NOTHING,
) -> dict[str, Any]:
    """Write the list of a source to `folder` and return the content of `source.json`.

    File names are relative to `pictures`; of the records of each pair, the columns `keep_columns` are kept.
    `problems` and `unused` may still grow while `pairs` is being consumed. Pairs that are forgotten are only counted,
    and their pictures are removed if they are files below `folder`.
    """
    count = 0
    missing: dict[int, str] = {}
    gone: list[RawPair] = []
    rows = _without(pairs, forgotten, gone)
    with (
        pq.ParquetWriter(folder / PAIRS, SCHEMA, compression="zstd") as writer,
        KeptColumns(folder, keep_columns) as columns,
    ):
        while chunk := list(islice(rows, GROUP)):
            for row, (pair, records) in enumerate(chunk, count):
                columns.add(pair.key, records)
                if pair.missing:
                    missing[row] = plain(pair.missing)
            writer.write_table(pa.Table.from_pylist([_row(pair, pictures) for pair, _ in chunk], schema=SCHEMA))
            count += len(chunk)
    for pair in gone:
        if pair.image and pair.image.path.is_relative_to(folder) and pair.image.path.name != PICTURE_FILE:
            pair.image.path.unlink(missing_ok=True)
    return _write_rest(folder, count, missing, len(gone), about, problems, unused, manifest, forgotten)


def join_listings(
    folder: Path,
    parts: Iterable[Path],
    *,
    about: Mapping[str, Any],
    problems: Problems,
    unused: Unused,
    manifest: Iterable[SourceFile] | None = None,
    keep_columns: Sequence[str] = (),
    forgotten: Forgotten = NOTHING,
) -> dict[str, Any]:
    """Write the list of a source whose parts were listed to folders of their own; the same as `write_listing` of all.

    `parts` are folders with lists, whose pictures are relative to one folder. Their problems, what they do not use and
    their forgotten pairs count.
    """
    places = list(parts)
    count = gone = 0
    missing: dict[int, str] = {}
    for place in places:
        missing |= {count + int(row): said for row, said in read_missing(place).items()}
        record = read_source(place)
        count += record["pairs"]
        gone += record.get(FORGOTTEN, 0)
        part_problems, groups = left_out(record)
        for problem in part_problems:
            problems.append(problem)
        for group in groups:
            unused.include(group)
    with pq.ParquetWriter(folder / PAIRS, SCHEMA, compression="zstd") as writer:
        for table in in_groups((pq.ParquetFile(place / PAIRS).read().cast(SCHEMA) for place in places), GROUP):
            writer.write_table(table)
    if keep_columns:
        join_columns(folder, places)
    return _write_rest(folder, count, missing, gone, about, problems, unused, manifest, forgotten)


def _write_rest(
    folder: Path,
    pairs: int,
    missing: Mapping[int, str],
    gone: int,
    about: Mapping[str, Any],
    problems: list[Problem],
    unused: Unused | None,
    manifest: Iterable[SourceFile] | None,
    forgotten: Forgotten,
) -> dict[str, Any]:
    """Write all of a list but its pairs, of which `gone` were forgotten; returns the content of `source.json`."""
    if missing:
        write_json(folder / MISSING, missing)
    if manifest is not None:
        with (folder / MANIFEST).open("w", encoding="utf-8") as file:
            file.writelines(
                canonical_json(asdict(entry)) + "\n"
                for entry in manifest
                if not forgotten.names(safe_key(stem_of(entry.path)), entry.sha256)
            )
    rows_of = problems.rows() if isinstance(problems, Problems) else problems
    record = {**about, "pairs": pairs, "problems": [_problem(problem) for problem in rows_of]}
    if unused is not None and (groups := unused.rows()):
        record["unused"] = [asdict(group) for group in groups]
    if gone:
        record[FORGOTTEN] = record.get(FORGOTTEN, 0) + gone
    write_json(folder / SOURCE, record)
    return record


def listed_unit(record: Mapping[str, Any]) -> UnitRecord:
    """The record of a unit with a list, from its `source.json`: its pairs, and the files that could not be used."""
    failures = {problem["file"]: problem["reason"] for problem in record["problems"]}
    return UnitRecord({"pairs": record["pairs"]}, failures)


def listed_part(folder: Path, record: dict[str, Any], unused: Unused) -> UnitRecord:
    """The same of a part of a source, for `join_listings`; `samples` also counts pairs that are forgotten."""
    record["unused"] = [asdict(group) for group in unused.groups()]
    write_json(folder / SOURCE, record)
    unit = listed_unit(record)
    return UnitRecord({**unit.counts, "samples": record["pairs"] + record.get(FORGOTTEN, 0)}, unit.failures)


def _without(
    pairs: Iterable[tuple[RawPair, Records]], forgotten: Forgotten, left_out: list[RawPair]
) -> Iterator[tuple[RawPair, Records]]:
    """The pairs that are not forgotten, with their records; the others are appended to `left_out`."""
    for pair, records in pairs:
        if forgotten.names(pair.key, pair.image and pair.image.sha256):
            left_out.append(pair)
        else:
            yield pair, records


def _problem(problem: Problem) -> dict[str, Any]:
    row = asdict(problem)
    if problem.count == 1:
        del row["count"]
    return row


def _row(pair: RawPair, pictures: Path) -> dict[str, Any]:
    image = pair.image
    row = {
        "key": pair.key,
        "captions": {plain(language): [plain(text) for text in texts] for language, texts in pair.captions.items()},
        "title": pair.title and plain(pair.title),
        "keywords": [plain(keyword) for keyword in pair.keywords],
        "category": pair.category and plain(pair.category),
        "licence": pair.licence and plain(pair.licence),
        "group": pair.group and plain(pair.group),
        "split": pair.split and plain(pair.split),
    }
    if image is not None:
        name = image.path.relative_to(pictures).as_posix()
        row |= {"file": name, "offset": image.offset, "size": image.size, "sha256": image.sha256}
    elif pair.unread is not None:
        row["file"] = plain(pair.unread)
    return row


def plain(text: str) -> str:
    """`text` without lone surrogates, which JSON can represent but UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
