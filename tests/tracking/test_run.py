"""What a training's end writes to its journal, whatever happens after it."""

from __future__ import annotations

import socket

import pytest

from flame_core.errors import ComputationError
from flame_core.settings import settings
from flame_core.tracking.journal import Journal
from flame_core.tracking.run import TrainingRun, track_training
from flame_core.tracking.store import journals
from tests.stages.pipeline import folder_source, pipeline_params
from tests.tracking.conftest import end, start, steps


def ends(journal: Journal) -> list[str]:
    return [event["status"] for event, _ in journal.events() if event["kind"] == "end"]


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
        with pytest.raises(OSError, match="no room"), track_training(params, tracked, "small", "abc") as run:
            assert run.complete
            raise OSError("no room")
    assert ends(journal) == ["FINISHED"]
