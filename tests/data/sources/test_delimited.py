from __future__ import annotations

import time
from pathlib import Path

import pytest

from flame_core.data.sources import Problem
from flame_core.data.sources.table import Row, Table, read_table
from flame_core.errors import InputError


def _read(
    folder: Path, content: str | bytes, name: str = "t.csv", encoding: str = "utf-8", delimiter: str | None = None
) -> tuple[list[tuple[int, Row]], list[str]]:
    """The rows of a table with this content, and what is said of others."""
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    problems: list[Problem] = []
    table = Table(folder / name, "image", ("image", "caption"), ("title",), encoding, delimiter, problems)
    rows = list(read_table(table))
    assert {(problem.file, problem.reason) for problem in problems} <= {(name, "damaged_row")}
    return rows, [problem.detail for problem in problems]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.TSV"])
def test_the_delimiter_is_found_by_the_header(tmp_path: Path, name: str, delimiter: str):
    others = "".join(set(",;\t|") - {delimiter})
    content = (
        delimiter.join(["other", "caption", "image"]) + "\n" + delimiter.join(["x", f"a{others}b", "a.png"]) + "\n"
    )
    assert _read(tmp_path, content, name) == ([(1, {"caption": f"a{others}b", "image": "a.png"})], [])
    assert _read(tmp_path, content, name, delimiter=delimiter)[0]
    with pytest.raises(InputError, match="no column 'image'"):
        _read(tmp_path, content, name, delimiter=others[0])


def test_a_row_that_does_not_fit_the_header_is_named_and_never_cut(tmp_path: Path):
    content = "image,caption\r\na.png,a dog, a cat\r\nb.png\r\n\r\nc.png,a cow\r\nd.png,\r\n"
    rows, problems = _read(tmp_path, content)
    assert rows == [(3, {"image": "c.png", "caption": "a cow"}), (4, {"image": "d.png", "caption": ""})]
    assert problems == [
        "row 1 (line 2) has 3 fields and the header 2; a field that holds the separator needs quotes",
        "row 2 (line 3) has 1 fields and the header 2; a field that holds the separator needs quotes",
    ]


def test_quotes_hold_separators_quotes_and_ends_of_lines(tmp_path: Path):
    rows, problems = _read(tmp_path, 'image,caption\na.png,"a, ""b""\nand c"\nb.png,5" wide\n')
    assert [row["caption"] for _, row in rows] == ['a, "b"\nand c', '5" wide']
    assert problems == []


def test_a_quote_that_is_not_closed_costs_its_own_line_alone(tmp_path: Path):
    content = (
        'image,caption\na.png,"a dog\nb.png,a cat\nc.png,"a cow" moos\nd.png,"a hen"\ne.png,"an owl\nf.png,a fox\n'
    )
    rows, problems = _read(tmp_path, content)
    assert [(number, row["image"]) for number, row in rows] == [(2, "b.png"), (4, "d.png"), (6, "f.png")]
    assert [text.split(" cannot")[0] for text in problems] == ["row 1 (line 2)", "row 3 (line 4)", "row 5 (line 6)"]


def test_many_open_quotes_take_bounded_time(tmp_path: Path):
    # each line is open whether it begins inside quotes or outside, so each would be read to the end of the file
    content = "image,caption\n" + 'x","z\n' * 60_000
    begin = time.process_time()
    with pytest.raises(InputError, match=r"too many quotes that are not closed, the last in line \d+"):
        _read(tmp_path, content)
    assert time.process_time() - begin < 30


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_about_the_encoding(tmp_path: Path, encoding: str):
    rows, problems = _read(tmp_path, "image,caption\nä.png,naïve 猫\n".encode(encoding))
    assert (rows, problems) == ([(1, {"image": "ä.png", "caption": "naïve 猫"})], [])


def test_an_encoding_is_asked_for_or_its_rows_are_named(tmp_path: Path):
    content = "image,caption\na.png,un café\nb.png,a cat\nc.png,l’été\n".encode("cp1252")
    rows, problems = _read(tmp_path, content)
    assert [row["caption"] for _, row in rows] == ["a cat"]
    assert problems[0].startswith("row 1 (line 2) is not utf-8; `encoding` may name another")
    assert len(problems) == 2
    rows, problems = _read(tmp_path, content, encoding="cp1252")
    assert [row["caption"] for _, row in rows] == ["un café", "a cat", "l’été"]
    assert problems == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'image'; it has no rows"),
        (b"\n\n", "no column 'image'; it has no rows"),
        (b"image, caption\na,b\n", r"no column 'caption'; it has ' caption', image \(separated by a comma\)"),
        (b"image,caption,caption\na,b,c\n", "has 2 columns 'caption'"),
        ("image,caption\na,b\n".encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        (b"\xff\xfeimage,caption\n"[:-1] + b"\n", "no column 'image'|cannot be read"),
        (b"image,caption,\xe9t\xe9\n", "t.csv has a header that is not utf-8"),
        (b"image,caption\na," + b"x" * (1 << 24), "line 2 has more than 16,777,216 characters"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(InputError, match=message):
        _read(tmp_path, content)


def test_a_huge_field_costs_its_row(tmp_path: Path):
    rows, problems = _read(tmp_path, "image,caption\na.png," + "x" * (2 << 20) + "\nb.png,b\n")
    assert [row["image"] for _, row in rows] == ["b.png"]
    assert len(problems) == 1 and problems[0].startswith("row 1 (line 2) cannot be read")


def test_lines_of_json(tmp_path: Path):
    lines = [
        b'{"image": "a.png", "caption": "A", "extra": 1}',
        b'{"image": "b.png", "caption": "\xe9"}',
        b"[1, 2]",
        b'{"image": "c.png", "caption": ' + b"[" * 970 + b"]" * 970 + b"}",
        b'{"image": "d.png", "caption": ' + b"[" * 100_000 + b"}",
        b'{"image": "e.png", "caption": "' + b"x" * (1 << 20) + b'"}',
        b'{"image": "f.png", "caption": "F"}',
    ]
    rows, problems = _read(tmp_path, b"\n".join(lines), "t.jsonl")
    assert rows == [(1, {"image": "a.png", "caption": "A"}), (7, {"image": "f.png", "caption": "F"})]
    assert [text.split(";")[0] for text in problems] == [
        "line 2 is not utf-8",
        "line 3 is not a JSON object",
        "line 4 is nested more than 32 deep",
        "line 5 is nested more than 32 deep",
        "line 6 has 1,048,581 characters",
    ]
