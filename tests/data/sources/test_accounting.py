from __future__ import annotations

from dataclasses import asdict

from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import NAMED, Problems, Unused
from flame_core.names import printable


def test_problems_are_bounded_and_counted_exactly():
    problems = Problems()
    for number in range(NAMED + 500):
        problems.append(Problem(f"{number}.jpg", "unreadable_file", "x"))
    problems.append(Problem("a.tar", "damaged_file", "cut", count=3))
    rows = problems.rows()
    assert len(rows) == NAMED + 2
    assert sum(row.count for row in rows if row.reason == "unreadable_file") == NAMED + 500
    assert rows[-1] == Problem(f"{NAMED}.jpg", "unreadable_file", "the first of 500 more of this kind", 500)
    assert Problem("a.tar", "damaged_file", "cut", 3) in rows


def test_unused_things_are_counted_by_reason_and_kind():
    unused = Unused()
    for number in range(10_000):
        unused.add("unsupported_member", f"0.tar/{number}.cls")
    unused.add("hidden", ".git", "folder")
    assert [asdict(group) for group in unused.rows()] == [
        {"reason": "hidden", "kind": "folder", "count": 1, "examples": [".git"]},
        {
            "reason": "unsupported_member",
            "kind": ".cls",
            "count": 10_000,
            "examples": [f"0.tar/{number}.cls" for number in range(3)],
        },
    ]


def test_as_many_kinds_as_files_stay_bounded():
    unused = Unused()
    for number in range(5000):
        unused.add("unsupported_suffix", f"a.x{number}")
    rows = unused.rows()
    assert len(rows) == 101 and sum(group.count for group in rows) == 5000
    assert next(group for group in rows if group.kind == "other kinds").count == 4900


def test_names_that_are_no_text_are_printable():
    assert printable("caf\udce9") == "caf\\udce9"
