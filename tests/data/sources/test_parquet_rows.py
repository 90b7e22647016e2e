from __future__ import annotations

import datetime
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.sources import Problem
from flame_core.data.sources.table import Row, Table, read_table
from flame_core.errors import InputError

NAMES = pa.array(["a.png", "b.png"])


def _read(folder: Path, table: pa.Table, **options: Any) -> tuple[list[Row], list[str]]:
    pq.write_table(table, folder / "t.parquet", **options)
    return _rows(folder / "t.parquet")


def _rows(path: Path) -> tuple[list[Row], list[str]]:
    problems: list[Problem] = []
    table = Table(path, "image", ("image", "caption"), ("category", "keywords"), "utf-8", None, problems)
    rows = [row for _, row in read_table(table)]
    return rows, [problem.detail for problem in problems]


def _invalid(*values: bytes) -> pa.Array:
    """A column of strings whose bytes are not checked."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


@pytest.mark.parametrize(
    ("captions", "read"),
    [
        (pa.array(["eins", None]), ["eins", None]),
        (pa.array([b"ein\xc3\xa4s", b"zwei"]), ["einäs", "zwei"]),
        (pa.array(["eins", "eins"]).dictionary_encode(), ["eins", "eins"]),
        (pa.array([b"eins", b"zwei"]).dictionary_encode(), ["eins", "zwei"]),
        (pa.array(["eins", "zwei"], pa.string_view()), ["eins", "zwei"]),
        (pa.array([["eins", None, ""], None], pa.large_list(pa.large_string())), [["eins", None, ""], None]),
        (pa.array([[b"eins"], [b"zwei", b"drei"]]), [["eins"], ["zwei", "drei"]]),
        (pa.array([{"en": "one", "de": None}, None]), [{"en": "one", "de": None}, None]),
        (
            pa.array([[("en", ["one"]), ("de", ["eins"])], []], pa.map_(pa.string(), pa.list_(pa.string()))),
            [{"en": ["one"], "de": ["eins"]}, {}],
        ),
        (pa.array([datetime.date(2020, 1, 2), None]), ["2020-01-02", None]),
        (pa.array([1.5, 2.0]), [1.5, 2.0]),
    ],
)
def test_captions_of_every_type(tmp_path: Path, captions: pa.Array, read: list[Any]):
    rows, problems = _read(tmp_path, pa.table({"image": NAMES, "caption": captions, "extra": NAMES}))
    assert rows == [{"image": name, "caption": value} for name, value in zip(["a.png", "b.png"], read, strict=True)]
    assert problems == []


def test_bytes_that_are_no_text_cost_their_row(tmp_path: Path):
    columns = {"image": pa.array(["a", "b", "c", "d"]), "caption": _invalid(b"one", b"caf\xe9", b"three", b"\xff")}
    rows, problems = _read(tmp_path, pa.table(columns))
    assert [row["image"] for row in rows] == ["a", "c"]
    assert problems == [f"row {n} cannot be used: 'caption' is not UTF-8" for n in (2, 4)]
    columns |= {"image": _invalid(b"a", b"b", b"\xe9", b"d"), "caption": pa.array([b"1", b"\xe9", b"3", b"4"])}
    rows, problems = _read(tmp_path, pa.table(columns))
    assert [row["image"] for row in rows] == ["a", "d"]
    assert problems == [
        "row 2 cannot be used: 'caption' holds bytes that are not UTF-8",
        "row 3 cannot be used: 'image' is not UTF-8",
    ]


def test_a_language_twice_in_one_cell_is_not_lost_in_silence(tmp_path: Path):
    captions = pa.array([[("en", "one"), ("en", "two")], [("en", "three")]], pa.map_(pa.string(), pa.string()))
    rows, problems = _read(tmp_path, pa.table({"image": NAMES, "caption": captions}))
    assert rows == [{"image": "b.png", "caption": {"en": "three"}}]
    assert len(problems) == 1 and problems[0].startswith("row 1 cannot be used: 'caption'")


def test_columns_that_nobody_reads_may_hold_anything(tmp_path: Path):
    stamps = pa.array([10**18, 0], pa.timestamp("us", tz="Nowhere/Atlantis"))
    table = {"image": NAMES, "caption": NAMES, "when": stamps, "text": _invalid(b"\xff", b"\xfe")}
    assert _read(tmp_path, pa.table(table)) == ([{"image": n, "caption": n} for n in ("a.png", "b.png")], [])


def test_a_time_zone_that_does_not_exist(tmp_path: Path):
    stamps = pa.array([0, 1], pa.timestamp("us", tz="Nowhere/Atlantis"))
    with pytest.raises(InputError, match=r"holds timestamp\[us, tz=Nowhere/Atlantis\] in the column 'category'"):
        _read(tmp_path, pa.table({"image": NAMES, "caption": NAMES, "category": stamps}))


@pytest.mark.parametrize("store_schema", [True, False])
def test_huge_cells_cost_their_rows_and_not_the_memory(tmp_path: Path, store_schema: bool):
    indices = pa.array([0, 1] * 2000, pa.int32())  # the huge text is in the file once; its rows would be 16 GiB
    captions = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * (8 << 20), "fine"]))
    table = pa.table({"image": [f"{i}.png" for i in range(4000)], "caption": captions})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    rows, problems = _read(tmp_path, table, store_schema=store_schema)
    assert (len(rows), len(problems)) == (2000, 2000)
    assert problems[0] == "row 1 cannot be used: 'caption' has 8,388,608 characters"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.list_(pa.string()), ["a.png"]),
        (pa.int64(), 7),
        (pa.struct({"array": pa.binary()}), {"array": b""}),
        (pa.timestamp("us"), 0),
    ],
)
def test_a_column_that_cannot_name_pictures_is_described(tmp_path: Path, kind: pa.DataType, value: Any):
    table = pa.table({"image": pa.array([value], kind), "caption": ["a"]})
    with pytest.raises(InputError, match="in the column 'image'; it must be names of files, the bytes of pictures, or"):
        _read(tmp_path, table)


def test_columns_that_are_missing_or_twice(tmp_path: Path):
    with pytest.raises(InputError, match="no column 'caption'; it has image, text"):
        _read(tmp_path, pa.table({"image": NAMES, "text": NAMES}))
    with pytest.raises(InputError, match="has 2 columns 'caption'"):
        _read(tmp_path, pa.table([NAMES, NAMES, NAMES], names=["image", "caption", "caption"]))


@pytest.mark.parametrize("depth", [40, 1000])
@pytest.mark.parametrize("store_schema", [True, False])
def test_types_within_types(tmp_path: Path, depth: int, store_schema: bool):
    kind = pa.string()
    for _ in range(depth):
        kind = pa.list_(kind)
    table = pa.table({"image": ["a"], "caption": pa.array([None], kind)})
    with pytest.raises(InputError, match=r"nested too deeply|not a readable parquet file"):
        _read(tmp_path, table, store_schema=store_schema)


def test_damaged_files_are_refused_whatever_byte_is_hit(tmp_path: Path):
    words = [f"drawing {i * 7919 % 1000}" for i in range(2000)]
    path = tmp_path / "t.parquet"
    table = pa.table({"image": words, "caption": words})
    pq.write_table(table, path, compression="snappy", row_group_size=500, write_page_checksum=True)
    good = path.read_bytes()
    rows, _ = _rows(path)
    outcomes = set()
    for place in range(4, len(good) - 4, len(good) // 60):
        path.write_bytes(good[:place] + bytes(byte ^ 0xFF for byte in good[place : place + 8]) + good[place + 8 :])
        try:
            found, problems = _rows(path)
            outcomes.add("named" if problems or found == rows else "changed")
        except InputError as error:
            assert "t.parquet" in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes and "changed" not in outcomes
    for length in (0, 3, 4, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(InputError, match="not a readable parquet file"):
            _rows(path)
