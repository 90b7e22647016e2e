"""The alert of a failed run, sent to a real HTTP server; an address that is dead does no harm."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from flame_core.settings import settings
from orchestration.alert import alert_sensors, send
from orchestration.dagster_dvc.assets import EXIT_CODE
from tests.ports import free_port


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server, and the JSON that it gets; it refuses what is sent to `/no`, redirects `/moved`."""
    got: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["content-type"] == "application/json"
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response({"/no": 404, "/moved": 301}.get(self.path, 200))
            self.send_header("location", "/hook/secret")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook/secret", got
        server.shutdown()


@pytest.fixture
def alerting(monkeypatch: pytest.MonkeyPatch) -> Any:
    def at(address: str) -> dg.SensorDefinition:
        monkeypatch.setenv("FLAME_ALERT_URL", address)
        settings.cache_clear()
        (sensor,) = alert_sensors()
        return sensor

    return at


def evaluate(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, *assets: dg.AssetsDefinition) -> Any:
    """What the sensor answers to a failed run of the assets."""
    result = dg.materialize(list(assets), instance=instance, raise_on_error=False)
    assert not result.success
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    )
    return result.run_id, sensor(context.for_run_failure())


@dg.asset
def ingest() -> None:
    raise dg.Failure(
        "ingest failed with exit code 4:\nflame ingest ...\nno picture is left",
        metadata={EXIT_CODE: 4},
        allow_retries=False,
    )


@dg.asset(check_specs=[dg.AssetCheckSpec("loss_went_down", asset="train", blocking=True)])
def train() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="loss_went_down", passed=False)])


def test_a_failed_stage_is_told_with_its_last_words(received, alerting, instance: dg.DagsterInstance) -> None:
    address, got = received
    run, answer = evaluate(alerting(address), instance, ingest)
    assert answer is None
    said = "ingest failed with exit code 4:\nflame ingest ...\nno picture is left"
    assert got == [
        {
            "text": "materialization failed at ingest: ingest failed with exit code 4: no picture is left",
            "run": run,
            "job": "materialization",
            "step": "ingest",
            "message": said,
            "exit_code": 4,
            "remedies": {},
            "link": f"http://127.0.0.1:{settings().dagster_port}/runs/{run}",
        }
    ]


def test_a_failed_check_is_told_with_its_remedies(received, alerting, instance: dg.DagsterInstance) -> None:
    address, got = received
    evaluate(alerting(address), instance, train)
    (told,) = got
    assert told["step"] == "train"
    said = "1 blocking asset check failed with ERROR severity: train: loss_went_down"
    assert told["text"] == f"materialization failed at train: {said}"
    assert told["remedies"]["loss_went_down"][0] == "threshold: train.gates.max_loss_ratio"


@dg.asset
def compare() -> None:
    raise OSError("the disk is gone")


def test_an_error_that_no_stage_wrote_is_told_too(received, alerting, instance: dg.DagsterInstance) -> None:
    address, got = received
    evaluate(alerting(address), instance, compare)
    assert got[0]["text"] == "materialization failed at compare: OSError: the disk is gone"


def test_a_dead_address_is_said_without_its_secret_and_does_no_harm(
    alerting, instance: dg.DagsterInstance, received
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/hook/secret"
    _, answer = evaluate(alerting(dead), instance, ingest)
    assert answer.skip_message.startswith("the alert was not sent: 127.0.0.1 does not answer")
    assert "secret" not in answer.skip_message
    refused = received[0].replace("/hook/secret", "/no")
    assert send(refused, {}) == "the alert was not accepted: 127.0.0.1 answered 404"


def test_a_redirect_is_said_and_not_followed_without_the_alert(received) -> None:
    moved = received[0].replace("/hook/secret", "/moved")
    said = "the alert was not accepted: 127.0.0.1 answered 301; set FLAME_ALERT_URL to the address that it redirects to"
    assert send(moved, {}) == said


def test_one_that_never_answers_is_left(alerting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.alert._SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        problem = send(f"http://127.0.0.1:{silent.getsockname()[1]}", {})
    assert problem and "does not answer" in problem


def test_without_an_address_there_is_no_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAME_ALERT_URL", raising=False)
    settings.cache_clear()
    assert alert_sensors() == []
