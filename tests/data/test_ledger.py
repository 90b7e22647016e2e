from __future__ import annotations

import pyarrow.parquet as pq

from flame_core.data.ledger import LEDGER, SCHEMA, LedgerEntry, ledger_table, read_ledger, source_entries
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import UnusedGroup


def test_counts_have_a_column_only_where_there_are_some(tmp_path):
    single = [
        LedgerEntry("s", "s/b", "dropped", "no_caption", "x"),
        LedgerEntry("s", "s/a", "changed", "caption_of_val", "y"),
    ]
    assert ledger_table(single).schema == SCHEMA  # as ledgers always were
    several = [*single, LedgerEntry("s", "1.cls", "unused", "unsupported_member", "z", count=7)]
    for entries in (single, several):
        pq.write_table(ledger_table(entries), tmp_path / LEDGER)
        assert read_ledger(tmp_path) == sorted(entries)


def test_what_a_source_saw_and_did_not_list():
    problems = [Problem("a.tar", "damaged_file", "cut off"), Problem("b.tar", "damaged_file", "more", 40)]
    unused = [UnusedGroup("hidden", ".jpg", 12, ["._1.jpg", "._2.jpg"])]
    entries = source_entries("s", problems, unused)
    assert [(entry.key, entry.outcome, entry.count) for entry in entries] == [
        ("a.tar", "dropped", 1),
        ("b.tar", "dropped", 40),
        ("._1.jpg", "unused", 12),
    ]
    assert entries[2].detail == "12 of the kind .jpg, not read since they are hidden: such as ._1.jpg, ._2.jpg"
