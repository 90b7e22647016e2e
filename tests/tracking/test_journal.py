"""The journal: whole lines only, kept files by content, one deliverer at a time."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flame_core.errors import InputError, ResourceError
from flame_core.tracking.address import sqlite_address
from flame_core.tracking.delivery import _Delivery
from flame_core.tracking.journal import DELIVERED, EVENTS, FILES, MODELS, Delivered, Journal


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


def test_a_kept_file_stays_as_it_was_when_the_original_is_rewritten_in_place(tmp_path):
    journal = Journal(tmp_path / "k")
    original = tmp_path / "params.yaml"
    original.write_text("a: 1\n")
    name = journal.keep(original)
    with original.open("r+") as file:  # as DVC does with dvc.lock, and editors do
        file.write("a: 2\n")
    assert journal.file(name).read_text() == "a: 1\n"
    assert journal.file(journal.keep(original)).read_text() == "a: 2\n"


def test_a_full_disk_is_named_and_keeps_no_part_of_a_copy(tmp_path, monkeypatch):
    journal, original = Journal(tmp_path / "k"), tmp_path / "report.html"
    original.write_text("fine")

    def cut(source, target):
        target.write_text("fi")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of a write, which names no file

    with monkeypatch.context() as full:
        full.setattr("flame_core.tracking.journal.copy_file", cut)
        for _ in range(2):
            with pytest.raises(ResourceError, match=f"^{journal.folder / FILES}: No space left on device. Free"):
                journal.keep(original)
    assert not list((journal.folder / FILES).iterdir())
    assert journal.file(journal.keep(original)).read_text() == "fine"


def test_keeping_a_file_again_mends_a_damaged_copy(tmp_path):
    journal = Journal(tmp_path / "k")
    (tmp_path / "x").write_text("x")
    name = journal.keep(tmp_path / "x")
    (journal.folder / "files" / name).write_text("y")
    assert journal.keep(tmp_path / "x") == name and journal.file(name).read_text() == "x"


def test_any_flipped_byte_costs_its_own_line_and_is_never_taken_for_something_else(tmp_path):
    journal = Journal(tmp_path / "k")
    events = [{"kind": "metrics", "step": step, "values": {"loss": 0.125}} for step in range(3)]
    journal.append(*events)
    whole = (journal.folder / EVENTS).read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            rotten = bytearray(whole)
            rotten[place] ^= 1 << bit
            (journal.folder / EVENTS).write_bytes(rotten)
            found = [event for event, _ in journal.events()]
            assert all(event in events for event in found)
            assert len(found) >= (1 if rotten[place] == 10 or whole[place] == 10 else 2)


def test_events_without_checks_as_older_journals_have_them_are_read(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.folder.mkdir()
    lines = [b'{"kind": "a"}', b'{"kind": 1}', b"\xff", b"[]", b'{"kind": "b"}']
    (journal.folder / EVENTS).write_bytes(b"\n".join(lines) + b"\n")
    journal.append({"kind": "c"})
    assert [event["kind"] for event, _ in journal.events()] == ["a", "b", "c"]


def test_a_flipped_byte_in_the_mark_sends_events_again_and_loses_none(tmp_path):
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "a"}, {"kind": "b"})
    end = (journal.folder / EVENTS).stat().st_size
    journal.mark(Delivered("here", end, run_id="r"))
    whole = (journal.folder / DELIVERED).read_bytes()
    assert journal.pending("here") == 0
    for place in range(len(whole)):
        (journal.folder / DELIVERED).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert journal.pending("here") in (0, 2)
        assert journal.delivered("here") in (Delivered("here"), Delivered("here", end, run_id="r"))
    (journal.folder / DELIVERED).write_text(f'{{"address": "here", "position": {end + 5}}}')  # of an older journal
    assert journal.pending("here") == 2


def test_a_mark_for_the_project_s_own_store_holds_where_the_project_goes(tmp_path):
    def own(project):
        state = tmp_path / project / ".flame"
        return Journal(state / "tracking" / "main" / "k"), sqlite_address(state / "mlflow" / "mlflow.db")

    journal, address = own("here")
    journal.append({"kind": "a"})
    journal.mark(Delivered(address, next(journal.events())[1], run_id="r"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved, elsewhere = own("there")
    assert moved.delivered(elsewhere).run_id == "r" and moved.pending(elsewhere) == 0
    assert moved.pending(address) == 1  # of the original, from the copy
    assert str(tmp_path) not in (journal.folder / DELIVERED).read_text()


@pytest.mark.parametrize("rotten", [b"", b"\xff", b"nosuch", None])
def test_a_model_leads_to_its_journal_by_its_events_where_the_index_is_gone(tmp_path, rotten):
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "tags", "tags": {"flame.model_sha256": "f00"}})
    if rotten is not None:
        (tmp_path / MODELS).mkdir()
        (tmp_path / MODELS / "f00").write_bytes(rotten)
    found = Journal.of_model(tmp_path, "f00")
    assert found is not None and found.folder == journal.folder


@pytest.mark.parametrize("at_work", ["journal.keep(journal.folder / 'events.jsonl')", "send(journal)"])
def test_a_killed_process_leaves_no_copies_of_files_for_ever(tmp_path: Path, at_work: str):
    """Copies of whole models, one of each kill."""
    journal = Journal(tmp_path / "k")
    journal.append({"kind": "a"})
    name = journal.keep(journal.folder / EVENTS)
    journal.append({"kind": "b"})
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from flame_core.tracking import delivery, journal as journals\n"
        "def killed(source, target):\n"
        "    target.write_bytes(b'a part')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "def send(journal):\n"
        "    sent = delivery._Delivery.__new__(delivery._Delivery)\n"
        "    sent.journal = journal\n"
        f"    with sent._files({{'events': {name!r}}}):\n"
        "        pass\n"
        "delivery.copy_file = journals.copy_file = killed\n"
        "journal = journals.Journal(Path(sys.argv[1]))\n"
        f"{at_work}\n"
    )
    done = subprocess.run([sys.executable, "-c", program, journal.folder], check=False)
    assert done.returncode == -signal.SIGKILL
    delivered = _Delivery.__new__(_Delivery)
    delivered.journal = journal
    with delivered._files({"events": name}):
        journal.keep(journal.folder / EVENTS)
    assert {path.name for path in journal.folder.iterdir()} == {EVENTS, FILES}
    assert all(len(path.name) == 64 for path in (journal.folder / FILES).iterdir())
