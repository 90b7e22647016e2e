"""What ends first when `flame ui` ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG

from flame_core.errors import ResourceError
from flame_core.process_trees.tree import ProcessTree
from orchestration.ui import servers, watch
from orchestration.ui.servers import Server
from tests.orchestration.test_instance import begun

WAIT = (sys.executable, "-c", "import time; time.sleep(60)")
Start = Callable[[Server, ProcessTree], subprocess.Popen[bytes]]
DAEMON = Server("dagster-daemon", (*WAIT, "dagster._daemon"))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process of a tree, and ends it after the test."""
    with ExitStack() as stack:

        def start(server: Server, tree: ProcessTree) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(server.command, env={**os.environ, **tree.environment()})
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def test_the_daemon_ends_alone(start: Start) -> None:
    mine, other = ProcessTree("ui-test"), ProcessTree("ui-other")
    daemon, run, others = start(DAEMON, mine), start(Server("run", WAIT), mine), start(DAEMON, other)
    watch.end_daemon(mine)
    assert daemon.poll() is not None
    assert (run.poll(), others.poll()) == (None, None)
    watch.end_daemon(mine)  # none is left


def test_no_queued_run_begins_while_the_others_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, server = ProcessTree("ui-test"), Server("dagster-code", WAIT)
    daemon, code = start(DAEMON, tree), start(server, tree)
    alive: list[bool] = []
    monkeypatch.setattr(servers, "end_runs", lambda home, tree: alive.extend(p.poll() is None for p in (daemon, code)))
    servers.end({server: code, DAEMON: daemon}, tree, tmp_path)
    assert alive == [False, True]  # the code server ends runs in order
    assert code.poll() is not None


def test_the_servers_end_also_if_the_history_cannot_be_read(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end_runs(home: Path, tree: ProcessTree) -> None:
        raise ResourceError("the disk is full")

    tree, server = ProcessTree("ui-test"), Server("dagster-code", WAIT)
    code = start(server, tree)
    monkeypatch.setattr(servers, "end_runs", end_runs)
    servers.end({server: code}, tree, tmp_path)
    assert code.poll() is not None
    assert "runs are not ended in order: the disk is full" in caplog.text


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def test_a_run_ends_in_order_although_its_code_server_has_ended(
    start: Start, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    tree = ProcessTree("ui-test")
    worker, other = start(Server("run", WAIT), tree), start(Server("other", WAIT), tree)
    run_id = begun(instance, {GRPC_INFO_TAG: json.dumps({"socket": str(tmp_path / "gone.sock")})})
    run = instance.get_run_by_id(run_id)
    instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(worker.pid))

    def report_end() -> None:
        worker.wait()
        instance.report_run_canceled(run)

    reporter = threading.Thread(target=report_end)
    reporter.start()
    watch.end_runs(tmp_path, tree)
    reporter.join()
    assert worker.returncode == -signal.SIGINT  # as Dagster asks it: its stage may write a checkpoint
    assert other.poll() is None


@pytest.mark.parametrize("asked", [False, True], ids=["", "that somebody terminates already"])
def test_a_run_whose_process_has_ended_is_not_waited_for(
    start: Start, tmp_path: Path, instance: dg.DagsterInstance, asked: bool
) -> None:
    tree = ProcessTree("ui-test")
    worker = start(Server("run", WAIT), tree)
    run_id = begun(instance, {GRPC_INFO_TAG: json.dumps({"socket": str(tmp_path / "gone.sock")})})
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(worker.pid))
    if asked:
        instance.report_run_canceling(run)
    worker.kill()
    worker.wait()
    began = time.monotonic()
    watch.end_runs(tmp_path, tree)
    assert time.monotonic() - began < 20  # of 140 s
    ended = instance.get_run_by_id(run_id)
    assert ended is not None and ended.status is dg.DagsterRunStatus.FAILURE


def test_a_run_that_somebody_terminates_already_is_waited_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    run = instance.get_run_by_id(begun(instance, {}))
    assert run is not None
    instance.report_run_canceling(run)
    later = threading.Timer(2.0, instance.report_run_canceled, [run])
    later.start()
    watch.end_runs(tmp_path, ProcessTree("ui-test"))
    assert not later.is_alive()
    later.join()
