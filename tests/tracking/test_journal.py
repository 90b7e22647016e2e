"""The journal: whole lines only, kept files by content, one deliverer at a time."""

from __future__ import annotations

import pytest

from flame_core.errors import InputError
from flame_core.tracking.journal import DELIVERED, EVENTS, Delivered, Journal


def test_events_come_back_in_order_and_from_any_position(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "a", "text": "grüße"}, {"kind": "b"})
    journal.append({"kind": "c"})
    events = list(journal.events())
    assert [event["kind"] for event, _ in events] == ["a", "b", "c"]
    assert [event["kind"] for event, _ in journal.events(events[0][1])] == ["b", "c"]
    assert events[-1][1] == (tmp_path / "k" / EVENTS).stat().st_size


def test_a_line_that_a_killed_process_cut_short_is_neither_read_nor_continued(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "a"})
    with (journal.folder / EVENTS).open("ab") as file:
        file.write(b'{"kind": "cut')
    assert [event["kind"] for event, _ in journal.events()] == ["a"]
    journal.append({"kind": "b"})
    assert [event["kind"] for event, _ in journal.events()] == ["a", "b"]


def test_a_journal_of_nothing_but_a_cut_line_starts_anew(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.folder.mkdir()
    (journal.folder / EVENTS).write_bytes(b'{"kin')
    journal.append({"kind": "a"})
    assert [event["kind"] for event, _ in journal.events()] == ["a"]


def test_a_kept_file_survives_its_original_and_a_changed_one_is_refused(tmp_path):
    journal = Journal(tmp_path / "k")
    original = tmp_path / "report.html"
    original.write_text("fine")
    name = journal.keep(original)
    original.unlink()
    assert journal.file(name).read_text() == "fine"
    journal.file(name).write_text("other")
    with pytest.raises(InputError, match=name):
        journal.file(name)


def test_the_mark_belongs_to_one_server(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "a"}, {"kind": "b"})
    position = next(journal.events())[1]
    journal.mark(Delivered("here", position, run_id="r"))
    assert (journal.delivered("here").run_id, journal.pending("here")) == ("r", 1)
    assert (journal.delivered("there").run_id, journal.pending("there")) == (None, 2)
    (journal.folder / DELIVERED).write_text("{")
    assert journal.pending("here") == 2


def test_one_process_delivers_at_a_time(tmp_path):
    journal = Journal(tmp_path / "k")
    with journal.delivering() as first, Journal(tmp_path / "k").delivering() as second:
        assert (first, second) == (True, False)
    with Journal(tmp_path / "k").delivering() as third:
        assert third


def test_a_model_leads_to_the_journal_of_its_training(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "a"})
    journal.remember_model("f00")
    found = Journal.of_model(tmp_path, "f00")
    assert found is not None and found.folder == journal.folder
    assert Journal.of_model(tmp_path, "ba5") is None
