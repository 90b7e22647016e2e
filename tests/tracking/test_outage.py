"""A real MLflow server that is killed and started again while a training records its steps."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.journal import Journal
from flame_core.tracking.run import shipping
from flame_core.tracking.shipper import deliver_all
from flame_core.tracking.steps import StepRecorder
from flame_core.tracking.store import journals, open_client
from tests.tracking.conftest import start
from tests.tracking.server import Server

pytestmark = pytest.mark.slow
STEPS = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def layout(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("FLAME_TRACKING_URI", server.address)
    settings.cache_clear()
    return Layout.find(tmp_path)


def rows(seed: int) -> list[dict[str, float]]:
    return [{"step": step, "loss": 1 / (1 + step + seed), "epoch": step // 50} for step in range(STEPS)]


def record(journal: Journal, server: Server, trained: list[dict[str, float]], at_step) -> None:
    """Record a training, calling `at_step` before every step."""
    journal.append(start(journal.key))
    run = StepRecorder(journal)
    with shipping(journal, server.address):
        for row in trained:
            at_step(int(row["step"]))
            run.record(row)
    journal.append({"kind": "end", "status": "FINISHED", "time": 9_000})


def losses(server: Server, journal: Journal) -> list[tuple[int, float]]:
    run_id = journal.delivered(server.address).run_id
    assert run_id
    history = open_client(server.address).get_metric_history(run_id, "train/loss")
    return sorted((point.step, point.value) for point in history)


def test_three_outages_during_a_training_lose_and_double_nothing(server: Server, layout: Layout) -> None:
    def disturb(step: int) -> None:
        time.sleep(0.02)
        if step in (40, 130, 220):
            server.kill()
        if step in (80, 170):
            server.start()

    journal = Journal(journals(layout) / "disturbed")
    trained = rows(1)
    record(journal, server, trained, disturb)
    assert journal.pending(server.address) > 0  # the server was down at the end
    server.start()
    deliver_all([journal], server.address)  # what `flame tracking replay` does
    undisturbed = Journal(journals(layout) / "undisturbed")
    record(undisturbed, server, trained, lambda step: None)
    assert losses(server, journal) == losses(server, undisturbed) == [(row["step"], row["loss"]) for row in trained]


def test_what_an_outage_left_is_sent_by_the_next_training(server: Server, layout: Layout) -> None:
    server.kill()
    left = Journal(journals(layout) / "left")
    record(left, server, rows(2)[:10], lambda step: None)
    assert left.pending(server.address) > 0
    server.start()
    record(Journal(journals(layout) / "next"), server, rows(3)[:10], lambda step: None)
    assert left.pending(server.address) == 0
    assert losses(server, left) == [(row["step"], row["loss"]) for row in rows(2)[:10]]


def test_two_trainings_at_once_are_two_runs(server: Server, layout: Layout) -> None:
    both = [Journal(journals(layout) / name) for name in ("one", "two")]
    for journal in both:
        journal.append(start(journal.key))
    runs = [StepRecorder(journal) for journal in both]
    with shipping(both[0], server.address), shipping(both[1], server.address):
        for first, second in zip(rows(4), rows(5), strict=True):
            runs[0].record(first)
            runs[1].record(second)
    assert len({journal.delivered(server.address).run_id for journal in both}) == 2
    for journal, seed in zip(both, (4, 5), strict=True):
        assert losses(server, journal) == [(row["step"], row["loss"]) for row in rows(seed)]


def test_the_shipper_ends_with_a_killed_training(server: Server, layout: Layout) -> None:
    code = (
        "import os, signal, sys, pathlib\n"
        "from flame_core.tracking import shipper\n"
        "from flame_core.tracking.journal import Journal\n"
        f"process = shipper.start(Journal(pathlib.Path({str(journals(layout) / 'killed')!r})), {server.address!r})\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_resumed_training_records_no_step_twice(server: Server, layout: Layout) -> None:
    journal = Journal(journals(layout) / "resumed")
    journal.append(start(journal.key))
    first = StepRecorder(journal)
    for row in rows(6)[:30]:
        first.record(row)
    resumed = StepRecorder(journal)  # from the checkpoint after step 19
    with shipping(journal, server.address):
        for row in rows(6)[20:60]:
            resumed.record(row)
    assert losses(server, journal) == [(row["step"], row["loss"]) for row in rows(6)[:60]]
