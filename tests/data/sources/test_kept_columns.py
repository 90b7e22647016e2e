from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from flame_core.data.sources.kept_columns import KeptColumns, join_columns, read_column
from flame_core.data.sources.listing import KEPT_COLUMNS
from flame_core.errors import InputError


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
    path = tmp_path / KEPT_COLUMNS
    assert list(read_column(path, "clip")) == [("k", 0.0), ("none", None)]
    assert list(read_column(path, "long")) == [("k", "a"), ("none", None)]


def test_damaged_columns_are_named(tmp_path: Path):
    path = write(tmp_path / "a", range(3)) / KEPT_COLUMNS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"columns\.parquet is damaged .*flame download"):
        list(read_column(path, "clip"))
