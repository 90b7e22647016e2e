from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data import scan
from flame_core.data.addresses import sorted_list
from flame_core.data.addresses.sorted_list import Address, read_addresses, write_sorted
from flame_core.data.sources import RawPair
from flame_core.data.sources.kept_columns import KeptColumns
from flame_core.data.sources.listing import KEPT_COLUMNS, read_pairs
from flame_core.data.sources.listing_writer import write_listing
from flame_core.errors import InputError
from flame_core.files import row_groups
from flame_core.files.row_groups import in_groups, read_rows

TABLE = pa.table({"number": range(10), "text": [str(number) for number in range(10)]})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is done in `row_groups`: footers parsed, rows and columns of row groups decoded."""
    done = {"footers": 0, "rows": 0, "columns": 0}
    read_metadata = pq.read_metadata

    class Counted(pq.ParquetFile):
        def read_row_groups(self, groups: list[int], columns: Any = None, **options: Any) -> pa.Table:
            table = super().read_row_groups(groups, columns, **options)
            done["rows"] += table.num_rows
            done["columns"] = table.num_columns
            return table

    def counted(file: Any) -> Any:
        done["footers"] += 1
        return read_metadata(file)

    monkeypatch.setattr(row_groups.pq, "ParquetFile", Counted)
    monkeypatch.setattr(row_groups.pq, "read_metadata", counted)
    return done


def settled(path: Path, hours: int = 1) -> None:
    """Let a file look as if it had been written some time ago."""
    about = path.stat()
    os.utime(path, (about.st_atime, about.st_mtime - 3600 * hours))


def write_groups(path: Path, sizes: list[int]) -> None:
    with pq.ParquetWriter(path, TABLE.schema) as writer:
        start = 0
        for size in sizes:
            writer.write_table(TABLE.slice(start, size))
            start += size


@pytest.mark.parametrize("sizes", [[10], [3, 3, 3, 1], [1, 7, 2], [4, 0, 6], [5, 5, 0]])
def test_rows_are_those_of_the_whole_table(tmp_path: Path, sizes: list[int]):
    write_groups(tmp_path / "table", sizes)
    for start in range(11):
        for stop in range(start, 11):
            assert read_rows(tmp_path / "table", start, stop) == TABLE.slice(start, stop - start)
    assert read_rows(tmp_path / "table") == TABLE
    assert read_rows(tmp_path / "table", 7, columns=["text"]) == TABLE.slice(7).select(["text"])
    assert read_rows(tmp_path / "table", 7, 7).schema == TABLE.schema


def test_a_file_that_is_replaced_while_it_is_opened_is_not_read_by_the_old_one_s_footer(tmp_path, monkeypatch):
    path, later = tmp_path / "table", tmp_path / "later"
    write_groups(path, [10])
    write_groups(later, [3, 7])
    settled(path)
    assert read_rows(path) == TABLE  # its footer is kept
    opened = row_groups.pa.OSFile

    def replaced_first(name: str) -> Any:
        later.replace(path)
        return opened(name)

    with monkeypatch.context() as patch:
        patch.setattr(row_groups.pa, "OSFile", replaced_first)
        assert read_rows(path, 2, 9) == TABLE.slice(2, 7)
    assert read_rows(path, 2, 9) == TABLE.slice(2, 7)


def test_only_the_row_groups_of_the_rows_are_decoded(tmp_path: Path, seen: dict[str, int]):
    write_groups(tmp_path / "table", [3, 3, 3, 1])
    read_rows(tmp_path / "table", 3, 6)
    assert seen["rows"] == 3
    read_rows(tmp_path / "table", 5, 7, ["text"])
    assert (seen["rows"], seen["columns"]) == (9, 1)
    read_rows(tmp_path / "table", 6, 6)
    assert seen["rows"] == 9


def test_rows_that_are_not_there(tmp_path: Path):
    write_groups(tmp_path / "table", [3, 7])
    for start, stop in ((0, 11), (11, None), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="10 rows"):
            read_rows(tmp_path / "table", start, stop)
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "none")


@pytest.mark.parametrize("sizes", [[], [0], [10], [3, 3, 3, 1], [1, 7, 2], [4, 0, 4, 0], [8]])
def test_tables_become_groups_of_one_size(sizes: list[int]):
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    found = list(in_groups((TABLE.slice(start, size) for start, size in zip(starts, sizes, strict=True)), 4))
    rows = [row for group in found for row in group.to_pylist()]
    assert rows == TABLE.slice(0, sum(sizes)).to_pylist()
    assert [len(group) for group in found] == [4] * (len(rows) // 4) + [len(rows) % 4] * (len(rows) % 4 > 0)
    assert all(column.num_chunks == 1 for group in found for column in group.columns)


def test_no_file_of_python_is_left_to_threads_of_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that lets go of it while the process ends would end it by SIGABRT."""
    write_groups(tmp_path / "table", [3, 7])
    monkeypatch.setattr(io, "open", None)
    assert read_rows(tmp_path / "table", 2, 5) == TABLE.slice(2, 3)


def test_footers_of_the_last_files_are_parsed_once(tmp_path: Path, seen: dict[str, int]):
    paths = [tmp_path / f"{number}" for number in range(5)]
    for path in paths:
        write_groups(path, [3, 7])
        settled(path)
    for _ in range(3):
        for path in paths[:4]:
            read_rows(path, 2, 5)
    assert seen["footers"] == 4
    read_rows(paths[4])
    read_rows(paths[3])
    assert seen["footers"] == 5
    read_rows(paths[0])  # the one that was not used longest
    assert seen["footers"] == 6


@pytest.mark.parametrize("hours", [0, 2])
def test_a_file_that_was_written_again_is_parsed_again(tmp_path: Path, hours: int):
    write_groups(tmp_path / "table", [3, 7])
    settled(tmp_path / "table", 1)
    assert read_rows(tmp_path / "table", 2, 3) == TABLE.slice(2, 1)
    write_groups(tmp_path / "table", [7, 3])
    if hours:
        settled(tmp_path / "table", hours)
    assert read_rows(tmp_path / "table", 6, 7) == TABLE.slice(6, 1)


def test_a_file_that_was_just_written_is_always_parsed(tmp_path: Path, seen: dict[str, int]):
    """Files that are written one after another may have the same time, place and size."""
    write_groups(tmp_path / "table", [3, 7])
    read_rows(tmp_path / "table")
    read_rows(tmp_path / "table")
    assert seen["footers"] == 2


def chunks(rows: int, read: Callable[[int, int], Any]) -> list[Any]:
    return [row for start in range(0, rows, 64) for row in read(start, min(start + 64, rows))]


def test_chunks_of_a_list_of_pairs_read_their_rows(tmp_path: Path, seen: dict[str, int]):
    pairs = [RawPair(f"k{number}", None, {"en": [str(number)]}) for number in range(2200)]
    write_listing(tmp_path, tmp_path, ((pair, ()) for pair in pairs), about={}, problems=[])
    settled(tmp_path / "pairs.parquet")
    assert chunks(2200, lambda start, stop: read_pairs(tmp_path, tmp_path, start, stop)) == pairs
    assert seen["footers"] == 1


def test_chunks_of_a_list_of_addresses_read_their_rows(tmp_path: Path, seen: dict[str, int]):
    rows = [Address(f"urls/{number % 256:02x}/{number:04x}", f"u{number}", None, None, "[]") for number in range(2200)]
    write_sorted(tmp_path, iter(rows), None)
    settled(tmp_path / sorted_list.ADDRESSES)
    found = chunks(2200, lambda start, stop: read_addresses(tmp_path, start, stop))
    assert found == sorted(rows, key=lambda row: row.key)
    assert seen["footers"] == 1


def test_chunks_of_kept_columns_read_their_rows(tmp_path: Path, seen: dict[str, int]):
    kept = KeptColumns(tmp_path, ["clip"])
    for number in range(5000):
        kept.add(f"k{number}", [{"clip": number}])
    kept.close()
    settled(tmp_path / KEPT_COLUMNS)
    for start, stop in ((0, 64), (1000, 1064), (4936, 5000)):
        task: Any = SimpleNamespace(source="s", raw=tmp_path, start=start, stop=stop)
        assert scan._kept_columns(task) == [{"clip": number} for number in range(start, stop)]
    assert (seen["footers"], seen["columns"]) == (1, 1)
    assert seen["rows"] == 1024 + 2 * 1024 + (5000 - 4 * 1024)
    damaged = (tmp_path / KEPT_COLUMNS).read_bytes()[:-100]
    (tmp_path / KEPT_COLUMNS).write_bytes(damaged)
    with pytest.raises(InputError, match=r"columns\.parquet is damaged .*flame download"):
        scan._kept_columns(task)
