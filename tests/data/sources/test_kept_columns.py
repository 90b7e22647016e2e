from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from flame_core.data.sources.kept_columns import KeptColumns, join_columns


def write(path: Path, numbers: range) -> Path:
    kept = KeptColumns(path)
    for number in numbers:
        kept.add(f"k{number}", [{"columns": {"clip": number}}])
    kept.close()
    return path


@pytest.mark.parametrize("sizes", [[], [0], [3], [1000, 24], [1024, 1024], [1030, 0, 5], [5, 2048, 1]])
def test_columns_of_parts_are_those_of_the_whole(tmp_path: Path, sizes: list[int]):
    ends = list(accumulate(sizes))
    rows = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    parts = [write(tmp_path / f"{number}", each) for number, each in enumerate(rows)]
    join_columns(tmp_path / "joined", parts)
    assert (tmp_path / "joined").read_bytes() == write(tmp_path / "whole", range(sum(sizes))).read_bytes()
