"""The sensor `failure_alert`: sends failed runs of the interface to an address (`FLAME_ALERT_URL`; off by default).

The address gets a POST with JSON:

    {"text": "pretrain failed at ingest: ingest failed with exit code 4: ...",
     "run": "2f6c...", "job": "pretrain", "step": "ingest", "message": "...", "exit_code": 4,
     "remedies": {"kept_fraction": ["threshold: ingest.gates.min_kept_fraction", ...]},
     "link": "http://127.0.0.1:3000/runs/2f6c..."}

Chats with incoming webhooks (Slack, Mattermost) show `text`, the first and the last line of `message` in one. It is
sent by the daemon, within half a minute. An address that does not answer costs ten seconds and a warning, and is not
tried again for that run.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from flame_core.loopback import opener
from flame_core.remedies import advice
from flame_core.settings import settings
from orchestration.dagster_dvc.assets import EXIT_CODE

NAME = "failure_alert"
_SECONDS = 10.0  # for the address to answer
_CHARACTERS = 3000  # of a message
_REDIRECTS = range(300, 400)
_NO_JOB = "__"  # begins Dagster's own names for materializations without a job


def alert_sensors() -> list[dg.SensorDefinition]:
    """The sensor, if an address is set."""
    address = settings().alert_url
    if address is None:
        return []

    @dg.run_failure_sensor(
        name=NAME,
        description=f"Sends failed runs to {_host(address)} (FLAME_ALERT_URL).",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        problem = send(address, alert(context))
        if problem is None:
            return None
        context.log.warning(problem)
        return dg.SkipReason(problem)

    return [sensor]


def alert(context: dg.RunFailureSensorContext) -> dict[str, Any]:
    """What is sent about a failed run."""
    run = context.dagster_run
    job = "materialization" if run.job_name.startswith(_NO_JOB) else run.job_name
    said: dict[str, Any] = {"step": None, "message": context.failure_event.message or "", "exit_code": None}
    for event in context.get_step_failure_events()[:1]:
        failure = event.step_failure_data
        given, error = failure.user_failure_data, failure.error
        code = given.metadata.get(EXIT_CODE) if given else None
        said = {
            "step": event.step_key,
            "message": (given and given.description) or (_said(error) if error else event.message or ""),
            "exit_code": code.value if isinstance(code, dg.IntMetadataValue) else None,
        }
    where = f" at {said['step']}" if said["step"] else ""
    said["message"] = said["message"].strip()[:_CHARACTERS]
    here = settings()
    return {
        "text": f"{job} failed{where}: {_in_a_line(said['message'])}",
        "run": run.run_id,
        "job": job,
        **said,
        "remedies": {name: advice(name) for name in _failed_checks(context)},
        "link": f"{here.ui_url(here.dagster_port)}/runs/{run.run_id}",
    }


def _said(error: SerializableErrorInfo) -> str:
    """The message of an error that no stage wrote: of its cause, and without the name of a class of Dagster's."""
    message = (error.cause or error).message
    name, _, rest = message.partition(": ")
    return rest if name.startswith("dagster.") else message


def _in_a_line(message: str) -> str:
    """The first line of a message, which says what failed, and the last, which mostly says why."""
    first, *rest = message.splitlines() or [""]
    return " ".join([first, *rest[-1:]])


def _failed_checks(context: dg.RunFailureSensorContext) -> Iterator[str]:
    """The names of the run's checks that failed and stopped it."""
    entries = context.instance.all_logs(context.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    for entry in entries:
        if (event := entry.dagster_event) is None:
            continue
        found = event.asset_check_evaluation_data
        if not found.passed and found.severity is dg.AssetCheckSeverity.ERROR:
            yield found.check_name


def send(address: str, content: dict[str, Any]) -> str | None:
    """POST JSON to an address; returns None, or why it did not arrive. Says no more of the address than its host."""
    request = urllib.request.Request(
        address, json.dumps(content).encode(), {"content-type": "application/json", "user-agent": "flame"}
    )
    try:
        with opener(address, _NoRedirect()).open(request, timeout=_SECONDS) as answer:
            answer.read(1)
        return None
    except urllib.error.HTTPError as error:
        hint = "; set FLAME_ALERT_URL to the address that it redirects to" if error.code in _REDIRECTS else ""
        return f"the alert was not accepted: {_host(address)} answered {error.code}{hint}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"the alert was not sent: {_host(address)} does not answer ({reason})"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: urllib would follow it with a GET, and the alert would be lost without a word."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def _host(address: str) -> str:
    return urllib.parse.urlsplit(address).hostname or "the address"
