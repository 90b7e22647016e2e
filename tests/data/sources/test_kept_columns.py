from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.sources.kept_columns import KeptColumns, join_columns, read_column
from flame_core.data.sources.listing import KEPT_COLUMNS, PAIRS
from flame_core.errors import InputError

SHA256 = "0" * 64


def list_pairs(folder: Path, *keys: str) -> None:
    pq.write_table(pa.table({"key": keys, "sha256": [SHA256] * len(keys)}), folder / PAIRS)


def write(folder: Path, numbers: range) -> Path:
    folder.mkdir()
    with KeptColumns(folder, ["clip"]) as kept:
        for number in numbers:
            kept.add(f"k{number}", [{"clip": number, "other": 1}])
    return folder


@pytest.mark.parametrize("sizes", [[], [0], [3], [1000, 24], [1024, 1024], [1030, 0, 5], [5, 2048, 1]])
def test_columns_of_parts_are_those_of_the_whole(tmp_path: Path, sizes: list[int]):
    ends = list(accumulate(sizes))
    rows = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    parts = [write(tmp_path / f"{number}", each) for number, each in enumerate(rows)]
    (tmp_path / "joined").mkdir()
    join_columns(tmp_path / "joined", parts)
    whole = write(tmp_path / "whole", range(sum(sizes))) / KEPT_COLUMNS
    assert (tmp_path / "joined" / KEPT_COLUMNS).read_bytes() == whole.read_bytes()


def test_of_several_records_the_first_value_counts(tmp_path: Path):
    with KeptColumns(tmp_path, ["clip", "long"]) as kept:
        kept.add("k", [{"clip": None, "long": "a"}, {"clip": 0.0}, {"clip": 1.0, "long": "b"}])
        kept.add("none", [])
    list_pairs(tmp_path, "k", "none")
    assert list(read_column(tmp_path, "clip")) == [("k", SHA256, 0.0), ("none", SHA256, None)]
    assert list(read_column(tmp_path, "long")) == [("k", SHA256, "a"), ("none", SHA256, None)]


def test_damaged_columns_are_named(tmp_path: Path):
    path = write(tmp_path / "a", range(3)) / KEPT_COLUMNS
    list_pairs(path.parent, "k0", "k1", "k2")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"columns\.parquet is damaged .*flame download"):
        list(read_column(path.parent, "clip"))


@pytest.mark.parametrize("keys", [["k0", "k2", "k1"], ["k0", "k1"], ["k0", "k1", "k2", "k3"]])
def test_columns_that_are_not_those_of_the_pairs_are_refused(tmp_path: Path, keys: list[str]):
    folder = write(tmp_path / "a", range(3))
    list_pairs(folder, *keys)
    with pytest.raises(InputError, match=r"columns\.parquet is damaged .*flame download"):
        list(read_column(folder, "clip"))


def test_a_column_that_params_name_since_is_asked_of_the_download(tmp_path: Path):
    folder = write(tmp_path / "a", range(3))
    list_pairs(folder, "k0", "k1", "k2")
    with pytest.raises(InputError, match=r"columns\.parquet has clip and not 'long': run `flame download` first"):
        list(read_column(folder, "long"))


def test_values_that_are_not_in_json_are_texts(tmp_path: Path):
    value = {date(2027, 5, 3): [Decimal("1.50"), datetime(2027, 5, 3)], None: {"a": 1.5, "b": None}}
    with KeptColumns(tmp_path, ["column"]) as kept:
        kept.add("k", [{"column": value}])
    list_pairs(tmp_path, "k")
    ((_, _, found),) = read_column(tmp_path, "column")
    assert found == {"2027-05-03": ["1.50", "2027-05-03 00:00:00"], "None": {"a": 1.5, "b": None}}
