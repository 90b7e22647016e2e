"""What is shown on a terminal is shown as it is, whatever brackets it holds."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from rich.console import Console

from flame_core import reporting

MARK = "a [/b] [bold red]c[/] [link=http://127.0.0.1]d[/link]"


def test_facts_and_tables_mark_nothing_up(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    reporting.facts(MARK, {MARK: MARK})
    reporting.table(MARK, [MARK], [[MARK]])
    shown = capsys.readouterr()
    assert shown.err.count(MARK) + shown.out.count(MARK) == 6


def test_cells_that_are_no_texts_are_shown_as_texts(capsys, monkeypatch):
    """As a stage of a user's own gives them, whose script no type checker has seen."""
    sent = {}
    monkeypatch.setattr(reporting.pipes, "send", sent.update)
    reporting.table("words", ["word", "times"], [("a", 57), (None, 0.5)])
    assert "57" in capsys.readouterr().out
    records = sent["words"]["raw_value"]["records"]
    assert records == [{"word": "a", "times": "57"}, {"word": "None", "times": "0.5"}]


LONG = "/home/ada/" + "a-rather-long-name/" * 6 + "report.html"


def test_a_log_line_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    reporting.configure_logging("INFO")
    logging.getLogger("flame_core.tests").info("written to %s in full", LONG)
    assert f"written to {LONG} in full\n" in capsys.readouterr().err


@pytest.fixture
def clock(monkeypatch):
    """Time in seconds, set by the test; the console is no terminal, and prints every progress line."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    monkeypatch.setattr(reporting, "_PLAIN_INTERVAL", 0.0)
    monkeypatch.setattr(reporting, "_PLAIN_SHARE", 0.0)
    monkeypatch.setattr(reporting, "console", Console(stderr=True, force_terminal=False, width=200))
    reporting.configure_logging("INFO")
    return now


def test_the_time_left_is_shown_only_once_it_is_known(clock, capsys):
    with reporting.progress("train", 1000, "images") as bar:
        clock.seconds = 60.0  # a model was loaded
        bar.advance(100, loss=0.5)
        first = capsys.readouterr().err
        clock.seconds = 70.0
        bar.advance(100)
        second = capsys.readouterr().err
    assert "train 100/1,000  loss 0.5" in first and "left" not in first and "images/s" not in first
    assert "train 200/1,000  10.0 images/s  80 s left" in second  # 800 at the 10 a second since the first


def test_a_resumed_run_does_not_count_what_was_done_before(clock, capsys):
    with reporting.progress("train", 1000, "images", done=500) as bar:
        clock.seconds = 1.0
        bar.advance(100)
        clock.seconds = 2.0
        bar.advance(100)
    assert "train 700/1,000  100.0 images/s  3 s left" in capsys.readouterr().err


@pytest.mark.parametrize("total", [0, 2])
def test_no_bar_is_shown_for_nothing(monkeypatch, capsys, total):
    monkeypatch.setattr(reporting, "console", Console(stderr=True, force_terminal=True, width=100))
    with reporting.progress("benchmarks of flame", total, "languages"):
        pass
    assert ("benchmarks of flame" in capsys.readouterr().err) == bool(total)


@pytest.mark.parametrize(("level", "said"), [("INFO", "flame run: looks ...\n"), ("ERROR", "")])
def test_a_start_is_said_unless_only_warnings_are_wanted(capsys, level, said):
    reporting.configure_logging(level)
    reporting.starting("flame run: looks")
    assert capsys.readouterr().err == said
    reporting.configure_logging("INFO")
