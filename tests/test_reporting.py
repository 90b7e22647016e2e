"""What is shown on a terminal is shown as it is, whatever brackets it holds."""

from __future__ import annotations

from flame_core import reporting

MARK = "a [/b] [bold red]c[/] [link=http://127.0.0.1]d[/link]"


def test_facts_and_tables_mark_nothing_up(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    reporting.facts(MARK, {MARK: MARK})
    reporting.table(MARK, [MARK], [[MARK]])
    shown = capsys.readouterr()
    assert shown.err.count(MARK) + shown.out.count(MARK) == 6
