"""What a training's end writes to its journal, whatever happens after it."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from flame_core.digest import file_sha256
from flame_core.errors import ComputationError
from flame_core.settings import settings
from flame_core.tracking.journal import EVENTS, Journal
from flame_core.tracking.run import TrainingRun, track_training
from flame_core.tracking.steps import StepRecorder
from flame_core.tracking.store import journals
from tests.stages.pipeline import folder_source, pipeline_params
from tests.tracking.conftest import end, start, steps


def ends(journal: Journal) -> list[str]:
    return [event["status"] for event, _ in journal.events() if event["kind"] == "end"]


def no_room(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failure_ends_a_training_and_a_failure_after_its_end_does_not(tracked, tmp_path):
    journal = Journal(journals(tracked) / "abc")
    journal.append(start(), *steps(3))
    run = TrainingRun(journal)
    run.failed(ComputationError("the loss is nan"))
    assert ends(journal) == ["FAILED"]
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    resumed = TrainingRun(journal)
    resumed.trained([], weights)
    resumed.failed(KeyboardInterrupt())
    assert ends(journal) == ["FAILED", "FINISHED"]


def test_a_failure_while_a_finished_journal_is_only_delivered_leaves_it_finished(tracked, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and never listened on: connections are refused
        monkeypatch.setenv("FLAME_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        settings.cache_clear()
        journal = Journal(journals(tracked) / "abc")
        journal.append(start(), *steps(3), end())
        params = pipeline_params({"made": folder_source(tracked.root)})
        training = track_training(params, tracked, "small", params.train["small"], "abc")
        with pytest.raises(OSError, match="no room"), training as run:
            assert run.complete
            raise OSError("no room")
    assert ends(journal) == ["FINISHED"]


def test_no_flipped_byte_and_no_full_disk_ends_a_training(tracked, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FLAME_TRACKING_URI", "http://127.0.0.1:9")
    settings.cache_clear()
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    rows = [{"step": step, "loss": 1.0} for step in range(4)]
    journal = Journal(journals(tracked) / "abc")
    journal.append(start(), *steps(2))
    whole = (journal.folder / EVENTS).read_bytes()
    for place in range(0, len(whole), 5):
        (journal.folder / EVENTS).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        run = TrainingRun(journal)
        recorder = StepRecorder(journal)
        for row in rows[1:]:
            recorder.record(row)
        run.trained(rows, weights)
        recorded = [event["step"] for event, _ in journal.events() if event["kind"] == "metrics"]
        assert sorted(recorded) == [0, 1, 2, 3] and ends(journal) == ["FINISHED"]
    recorder = StepRecorder(Journal(journals(tracked) / "full"))
    with monkeypatch.context() as full:
        full.setattr("flame_core.tracking.journal._drop_cut_line", no_room)
        recorder.record(rows[0])
        recorder.record(rows[1])
    assert caplog.text.count("is not recorded yet") == 1 and "No space left on device" in caplog.text
    caplog.clear()
    recorder.record(rows[2])
    assert [event["step"] for event, _ in Journal(journals(tracked) / "full").events()] == [0, 1, 2]
    (journal.folder / EVENTS).unlink()
    (journal.folder / EVENTS).mkdir()  # nothing can be written there, nor read
    run = TrainingRun(journal)
    recorder = StepRecorder(journal)
    recorder.record(rows[0])
    recorder.record(rows[1])
    run.failed(ComputationError("the loss is nan"))
    assert caplog.text.count("is not recorded yet") == 1 and "why the training stopped" in caplog.text
    (journal.folder / EVENTS).rmdir()
    recorder.record(rows[2])
    assert [event["step"] for event, _ in journal.events()] == [0, 1, 2]
    run.trained(rows, weights)
    assert ends(journal) == ["FINISHED"] and Journal.of_model(journals(tracked), file_sha256(weights))


def test_a_training_whose_journal_cannot_be_used_is_trained_all_the_same(tracked, monkeypatch, caplog):
    monkeypatch.setenv("FLAME_TRACKING_URI", "http://127.0.0.1:9")
    settings.cache_clear()
    journals(tracked).parent.mkdir(parents=True)
    journals(tracked).write_text("a file where the journals' folder should be")
    params = pipeline_params({"made": folder_source(tracked.root)})
    with track_training(params, tracked, "small", params.train["small"], "abc") as run:
        run.trained([{"step": 0, "loss": 1.0}], tracked.root / "none")
    assert "not recorded: the start of the training" in caplog.text
    assert "not recorded: the end of the training" in caplog.text
