"""Facts and tables at 80 columns: nothing is cut, and no word is broken."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flame_core.terminal import column_widths, print_facts, print_table

LONG = "/home/ada/" + "a-rather-long-name/" * 6 + "report.html"
SHORT = "data/reports/flame/report.html"


def printed(show, *content, width=80) -> list[str]:
    file = io.StringIO()
    show(Console(file=file, width=width), *content)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_path_that_does_not_fit_has_a_line_of_its_own():
    lines = printed(print_facts, "evaluate@flame", {"gates": "passed", "report": LONG, "page": SHORT})
    assert lines == ["evaluate@flame", "  gates   passed", "  report", LONG, f"  page    {SHORT}"]


@pytest.mark.parametrize("width", [80, 30])
def test_what_would_steer_the_terminal_is_escaped(width):
    name = "a\x1b]0;title\x07\x9b31mb.jpg"
    for lines in (
        printed(print_table, "t", ["picture"], [[name]], width=width),
        printed(print_facts, "t", {"p": name}),
    ):
        said = "".join(lines)
        assert "\x1b" not in said and "\x9b" not in said and r"\x1b]0;title\x07\x9b31mb.jpg" in said


def test_a_path_within_a_sentence_stays_whole():
    lines = printed(print_facts, "t", {"verified": f"12 files of {LONG} in 3 s"})
    assert any(LONG in line for line in lines)


def test_a_sentence_is_wrapped_between_words():
    lines = printed(print_facts, "t", {"basis": "tokens counted by words and marks; " * 4})
    assert len(lines) > 2 and all(len(line) <= 80 for line in lines)
    assert " ".join(" ".join(lines).split()) == "t basis " + ("tokens counted by words and marks; " * 4).strip()


def test_a_long_name_stands_beside_its_value():
    name = "failed: the picture cannot be decoded (OSError)"
    assert printed(print_facts, "t", {name: "12"})[1] == f"  {name}  12"


def test_a_table_that_fits_keeps_every_word():
    rows = [("train@flame", "would run", "params.yaml: train.epochs 20 → 5", "140 steps of 128 pictures")]
    lines = printed(print_table, "stages", ["stage", "state", "why", "cost"], rows)
    assert all(len(line) <= 80 for line in lines) and any("┃" in line for line in lines)
    for word in " ".join(rows[0]).split():
        assert any(word in line for line in lines), word
    assert "…" not in "".join(lines)


def test_a_table_that_does_not_fit_becomes_blocks():
    lines = printed(print_table, "models", ["key", "path", "note"], [("a", LONG, "x"), ("b", LONG, "")])
    assert lines.count(LONG) == 2
    assert [line.split() for line in lines if line.startswith("  key")] == [["key", "a"], ["key", "b"]]
    assert sum(line.startswith("  note") for line in lines) == 1  # an empty cell is left out


@pytest.mark.parametrize(
    ("columns", "rows", "room", "widths"),
    [
        (["a", "b"], [("one two", "x")], 80, [7, 1]),  # as wide as its text
        (["a", "b"], [("one two", "x")], 13, [5, 1]),  # 13 = 5 + 1 + borders
        (["a", "b"], [("one two", "x")], 11, [3, 1]),  # the longest word
        (["a", "b"], [("one two", "x")], 10, None),
        (["a"], [], 80, [1]),
    ],
)
def test_widths(columns, rows, room, widths):
    assert column_widths(columns, rows, room) == widths


def test_a_table_without_rows_is_its_title():
    assert printed(print_table, "promoted: there is no champion", ["measure", "verdict"], []) == [
        "promoted: there is no champion"
    ]
