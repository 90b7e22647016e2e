"""What ends first when `flame ui` ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flame_core.errors import ResourceError
from orchestration.processes.tree import ProcessTree
from orchestration.ui import servers, watch
from orchestration.ui.servers import Server

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
    monkeypatch.setattr(servers, "end_runs", lambda home: alive.extend(p.poll() is None for p in (daemon, code)))
    servers.end({server: code, DAEMON: daemon}, tree, tmp_path)
    assert alive == [False, True]  # the code server ends runs in order
    assert code.poll() is not None


def test_the_servers_end_also_if_the_history_cannot_be_read(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end_runs(home: Path) -> None:
        raise ResourceError("the disk is full")

    tree, server = ProcessTree("ui-test"), Server("dagster-code", WAIT)
    code = start(server, tree)
    monkeypatch.setattr(servers, "end_runs", end_runs)
    servers.end({server: code}, tree, tmp_path)
    assert code.poll() is not None
    assert "runs are not ended in order: the disk is full" in caplog.text
