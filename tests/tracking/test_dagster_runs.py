"""Where Dagster has a run: in this project's instances, or at a server, which may be another project's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from flame_core.layout import Layout
from flame_core.tracking.dagster_runs import find_run
from flame_core.workspace import environment
from tests.ports import free_port

NOWHERE = "http://127.0.0.1:9/runs/x"
UNKNOWN = "1510a7b4-a5eb-4bd6-8a2c-3b1f6f7f0f00"


@dg.asset
def made() -> None:
    """Nothing."""


def run_in(home: Path) -> str:
    """A run in an instance of its own; returns its id."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return dg.materialize([made], instance=instance).run_id


@pytest.mark.parametrize("home", ["dagster", "dagster-inline"])
def test_a_run_is_found_in_the_project_s_instance_without_a_server(tmp_path, home):
    layout = Layout.find(tmp_path)
    run = run_in(layout.state / home)
    found = find_run(layout, run, NOWHERE)
    assert (found.home, found.searched, found.served) == (layout.state / home, True, False)
    assert "does not answer at http://127.0.0.1:9" in found.server
    assert find_run(layout, UNKNOWN, NOWHERE).home is None


def test_a_project_without_an_instance_cannot_tell(tmp_path):
    found = find_run(Layout.find(tmp_path), UNKNOWN, NOWHERE)
    assert (found.home, found.searched, found.served, found.ours) == (None, False, False, False)


def test_a_history_that_cannot_be_read_cannot_tell(tmp_path, caplog):
    layout = Layout.find(tmp_path)
    home = layout.state / "dagster"
    run = run_in(home)
    (home / "history" / "runs.db").write_bytes(b"no database at all" * 1000)
    found = find_run(layout, run, NOWHERE)
    assert (found.home, found.searched) == (None, False)
    assert f"Dagster's history in {home} cannot be read: (sqlite3.DatabaseError) file is not a database" in caplog.text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Layout, str]]:
    """A project whose web server runs, and its address."""
    layout, port = Layout.find(tmp_path / "theirs"), free_port()
    home = layout.state / "dagster"
    run_in(home)
    (home / "workspace.yaml").write_text("load_from: []\n")
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env={**os.environ, **environment(), "DAGSTER_HOME": str(home)}, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 240
            while not answers(f"http://127.0.0.1:{port}/server_info"):
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
            yield layout, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_a_server_is_known_as_the_project_s_own_or_another_s(server, tmp_path):
    theirs, address = server
    with dg.DagsterInstance.from_config(str(theirs.state / "dagster")) as instance:
        run = instance.get_runs()[0].run_id
    found = find_run(theirs, run, f"{address}/runs/{run}")
    assert (found.served, found.ours, found.home) == (True, True, theirs.state / "dagster")
    found = find_run(theirs, UNKNOWN, f"{address}/runs/{UNKNOWN}")
    assert (found.served, found.ours, found.home) == (False, True, None)
    ours = Layout.find(tmp_path / "ours")
    own = run_in(ours.state / "dagster")
    found = find_run(ours, own, f"{address}/runs/{own}")
    assert (found.served, found.ours, found.home) == (False, False, ours.state / "dagster")
    assert found.server.startswith("another project's Dagster answers")
