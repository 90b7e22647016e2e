"""`flame ui` on a small project: all servers answer, a run succeeds in several processes, ending leaves no process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psutil
import pytest

from flame_core.layout import Layout
from flame_core.process_trees.tree import TOKEN
from orchestration.dagster_dvc.assets import REFRESH_TAG
from tests.foreign_project import edit
from tests.orchestration.test_experiment import layout as layout  # the fixture: FLAME's params, two cheap stages
from tests.ports import free_port

pytestmark = pytest.mark.slow
LAUNCH = """
mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
ASSETS = "{ assetNodes { assetKey { path } isExecutable } }"
FAILURES = """
query($r: ID!) { logsForRun(runId: $r) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
  ... on RunFailureEvent { message error { message } } } } } }
"""
STATUS = "query($r: ID!) { runOrError(runId: $r) { ... on Run { status stepStats { stepKey status } } } }"


class Ui:
    """A running `python -m orchestration.ui.servers`."""

    def __init__(self, layout: Layout) -> None:
        self.port, self.mlflow_port = free_port(), free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.ui.servers"],
            cwd=layout.root,
            env={**os.environ, "FLAME_DAGSTER_PORT": str(self.port), "FLAME_MLFLOW_PORT": str(self.mlflow_port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.said = ""
        while "Ctrl-C" not in self.said:
            line = self.process.stderr.readline()
            assert line, f"it ended: {self.said}"
            self.said += line
        self.tokens = set(self._token(psutil.Process(self.process.pid).children()[0]).split())

    @staticmethod
    def _token(process: psutil.Process) -> str:
        try:
            return process.environ().get(TOKEN, "")
        except psutil.Error:
            return ""

    def processes(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if self.tokens.intersection(self._token(p).split())]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def materialize_all(self, refresh: str = "") -> str:
        """Start what the page's "Materialize all" starts: every asset that can be made, with its checks."""
        nodes = self.ask(ASSETS)["assetNodes"]
        selector = {
            "assetSelection": [{"path": node["assetKey"]["path"]} for node in nodes if node["isExecutable"]],
            "repositoryLocationName": "flame",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
        }
        tags = [{"key": REFRESH_TAG, "value": refresh}] if refresh else []
        metadata = {"tags": tags}
        params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": metadata}
        answer = self.ask(LAUNCH, p=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def wait(self, run: str, *statuses: str, seconds: float = 180) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (state := self.ask(STATUS, r=run)["runOrError"])["status"] not in statuses:
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
        return state

    def succeeds(self, run: str, seconds: float = 180) -> None:
        """Wait for the end of a run; an error shows what its steps failed with."""
        state = self.wait(run, "SUCCESS", "FAILURE", seconds=seconds)
        assert state["status"] == "SUCCESS", [e for e in self.ask(FAILURES, r=run)["logsForRun"]["events"] if e]

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)


@pytest.fixture
def ui(layout: Layout) -> Iterator[Ui]:
    # train waits for a file, so that a run is in progress for as long as the test wants
    edit(
        layout.root / "dvc.yaml",
        "mkdir -p data/models &&",
        "while test -e wait; do sleep 0.1; done; mkdir -p data/models &&",
    )
    ui = Ui(layout)
    yield ui
    if ui.process.poll() is None:
        ui.end()
    for process in ui.processes():
        process.kill()


def start_and_wait_in_a_stage(ui: Ui) -> str:
    """The id of a run of everything, as far as the stage that waits for a file to go."""
    run = ui.materialize_all()
    ui.wait(run, "STARTED")
    deadline = time.monotonic() + 60
    while not any("while test -e wait" in " ".join(p.cmdline()) for p in ui.processes()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return run


def test_a_run_succeeds_and_ending_it_all_leaves_no_process(ui: Ui, layout: Layout) -> None:
    ui.succeeds(ui.materialize_all())
    assert (layout.root / "data/comparison").read_text() == "40\n"

    edit(layout.params, "epochs: 40", "epochs: 41")
    (layout.root / "wait").touch()
    start_and_wait_in_a_stage(ui)
    assert len(ui.processes()) >= 6  # servers, the run, its step, dvc, the stage
    ui.end()
    assert ui.processes() == []
    assert ui.process.returncode == 0


HISTORY = """{
  runsOrError { ... on Runs { results { runId status jobName } } }
  assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } staleStatus }
}"""


def test_the_runs_of_a_shell_are_in_its_history(layout: Layout) -> None:
    done = subprocess.run([sys.executable, "-m", "orchestration.materialize"], cwd=layout.root, check=False)
    assert done.returncode == 0
    ui = Ui(layout)
    try:
        found = ui.ask(HISTORY)
        (run,) = found["runsOrError"]["results"]
        assert (run["status"], run["jobName"]) == ("SUCCESS", "__ASSET_JOB")
        assets = {"/".join(node["assetKey"]["path"]): node for node in found["assetNodes"]}
        experiments = {name for name in assets if name.startswith("experiments/")}
        assert experiments == {"experiments/train.flame", "experiments/compare"}
        assets = {name: node for name, node in assets.items() if name not in experiments}
        assert set(assets) == {"train.flame", "compare", "promote"}
        assert {node["assetMaterializations"][0]["runId"] for node in assets.values()} == {run["runId"]}
        assert {node["staleStatus"] for node in assets.values()} == {"FRESH"}
        again = subprocess.run(
            [sys.executable, "-m", "orchestration.ui.servers"], cwd=layout.root, capture_output=True, text=True
        )
        assert again.returncode == 5 and f"for this project (process {ui.process.pid})" in again.stderr
    finally:
        ui.end()


def test_a_killed_interface_leaves_no_process_and_its_run_stops_in_order(ui: Ui, layout: Layout) -> None:
    (layout.root / "wait").touch()
    run = start_and_wait_in_a_stage(ui)
    ui.process.kill()
    ui.process.communicate()
    deadline = time.monotonic() + 120
    while left := ui.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    with dg.DagsterInstance.from_config(str(layout.state / "dagster")) as instance:
        ended = instance.get_run_by_id(run)
        assert ended is not None and ended.is_finished and not ended.is_success


def test_the_next_interface_ends_what_a_killed_one_left_in_order(ui: Ui, layout: Layout) -> None:
    (layout.root / "wait").touch()
    run = start_and_wait_in_a_stage(ui)
    watcher = next(p for p in psutil.Process(ui.process.pid).children() if "orchestration.ui.watch" in p.cmdline())
    watcher.kill()
    ui.process.kill()
    ui.process.communicate()
    following = Ui(layout)
    try:
        assert "ending its runs and them first" in following.said
        assert following.wait(run, "CANCELED", "FAILURE")["status"] == "CANCELED"
    finally:
        following.end()


def test_a_code_server_that_ends_takes_its_runs_along_in_order(ui: Ui, layout: Layout) -> None:
    (layout.root / "wait").touch()
    run = start_and_wait_in_a_stage(ui)
    next(p for p in ui.processes() if "code-server" in p.cmdline()).kill()
    _, said = ui.process.communicate(timeout=120)
    assert ui.process.returncode == 5 and "dagster-code ended with code -9" in said and "Traceback" not in said
    assert ui.processes() == []
    with dg.DagsterInstance.from_config(str(layout.state / "dagster")) as instance:
        ended = instance.get_run_by_id(run)
        assert ended is not None and ended.status is dg.DagsterRunStatus.CANCELED


def test_mlflow_refuses_other_hosts_and_origins(ui: Ui) -> None:
    """Its own guard; the test says if a new version comes without."""
    path = f"http://127.0.0.1:{ui.mlflow_port}/api/2.0/mlflow/experiments/create"
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        body = json.dumps({"name": "stolen"}).encode()
        request = urllib.request.Request(path, body, {"content-type": "application/json", **headers})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=60)


def test_a_port_in_use_is_named_with_its_setting(layout: Layout) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.ui.servers"],
            cwd=layout.root,
            env={**os.environ, "FLAME_DAGSTER_PORT": str(taken.getsockname()[1])},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 5
    assert "set FLAME_DAGSTER_PORT to another" in done.stderr
