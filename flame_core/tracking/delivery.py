"""A journal's events to MLflow: in order, each once, as far as the server lets us.

The mark of what has arrived is moved after every batch. An event that arrived although its answer was lost is sent
again, and that is harmless: MLflow keeps one of two equal metric points, a run is found by its key before one is
created, and files, tags and datasets replace themselves.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flame_core.errors import InputError, ResourceError
from flame_core.tracking.journal import KEY_TAG, Delivered, Journal
from flame_core.tracking.notes import dagster_link
from flame_core.tracking.store import experiment_id, open_client, run_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1000  # metrics that MLflow takes at once
_PARAM_LENGTH = 6000  # characters of a param that MLflow keeps
_PARAMS = 100  # params that MLflow takes at once
# What a server answers to a request that will never be taken; anything else is an outage, to be tried again.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
T = TypeVar("T")
log = logging.getLogger(__name__)


class Outage(ResourceError):
    """The server did not take an event; the journal keeps it and all after it."""


def deliver(journal: Journal, address: str) -> int:
    """Send what has not arrived yet; returns the number of events sent (0 where another process is sending).

    Raises:
        Outage: the server cannot be reached, or fails.
    """
    with journal.delivering() as allowed:
        if not allowed or not journal.pending(address):
            return 0
        return _Delivery(journal, address).run()


def metric_name(name: str) -> str:
    """A metric's name in MLflow, which takes no `@`: `recall@10` is `recall_at_10`."""
    return name.replace("@", "_at_")


class _Delivery:
    def __init__(self, journal: Journal, address: str) -> None:
        self.journal = journal
        self.address = address
        self.state = journal.delivered(address)
        self.client: MlflowClient = _outage(address, lambda: open_client(address))
        if self.state.run_id and not _outage(address, self._run_exists):
            log.warning("MLflow at %s no longer has run %s; sending all of it again", address, self.state.run_id)
            self.state = Delivered(address)

    def run(self) -> int:
        sent = 0
        points: list[dict[str, Any]] = []
        end = self.state.position
        for event, position in self.journal.events(self.state.position):
            if event["kind"] != "metrics" or sum(len(point["values"]) for point in points) >= _BATCH:
                self._send_points(points, end)
                points = []
            if event["kind"] == "metrics":
                points.append(event)
            else:
                self._send(event["kind"], partial(getattr(self, f"_{event['kind']}"), event), position)
            end = position
            sent += 1
        self._send_points(points, end)
        return sent

    def _send_points(self, points: list[dict[str, Any]], position: int) -> None:
        if points:
            self._send("metrics", partial(self._metrics, points), position)

    def _send(self, what: str, call: Callable[[], None], position: int) -> None:
        """Make a call and move the mark; what MLflow refuses for good is left out with a warning."""
        from mlflow.exceptions import MlflowException

        def careful() -> None:
            try:
                call()
            except MlflowException as error:
                if error.error_code not in _REFUSALS:
                    raise
                log.warning("MLflow refused %s of %s: %s", what, self.journal.key, error.message)
            except InputError as error:
                log.warning("not sent to MLflow: %s", error)

        _outage(self.address, careful)
        self.state.position = position
        self.journal.mark(self.state)

    # --- one method for each kind of event ---

    def _start(self, event: dict[str, Any]) -> None:
        """The run, found or created; later starts of the same training go on in it."""
        self.state.experiment_id = self.state.experiment_id or experiment_id(self.client, self.address)
        self.state.run_id = self.state.run_id or self._find_run()
        if self.state.run_id is None:
            tags = {**event["tags"], KEY_TAG: self.journal.key}
            run = self.client.create_run(self.state.experiment_id, event["time"], tags, event["name"])
            self.state.run_id = run.info.run_id
        else:
            self.client.update_run(self._run_id, status="RUNNING")
            self._tags(event)
        self.journal.mark(self.state)

    def _params(self, event: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value[:_PARAM_LENGTH]) for key, value in event["params"].items()]
        for first in range(0, len(params), _PARAMS):
            self.client.log_batch(self._run_id, params=params[first : first + _PARAMS])

    def _tags(self, event: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in event["tags"].items()])

    def _inputs(self, event: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = [InputTag("mlflow.data.context", event["context"])]
        datasets = [DatasetInput(Dataset(**dataset), tags=context) for dataset in event["datasets"]]
        self.client.log_inputs(self._run_id, datasets=datasets)

    def _metrics(self, events: Iterable[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(
                metric_name(name),
                value,
                event["time"],
                event["step"],
                model_id=self.state.model_id if event.get("of_model") else None,
                dataset_name=dataset and dataset["name"],
                dataset_digest=dataset and dataset["digest"],
            )
            for event in events
            for dataset in [event.get("dataset")]
            for name, value in event["values"].items()
        ]
        for first in range(0, len(points), _BATCH):
            self.client.log_batch(self._run_id, metrics=points[first : first + _BATCH])

    def _artifacts(self, event: dict[str, Any]) -> None:
        with self._files(event["files"]) as folder:
            self.client.log_artifacts(self._run_id, str(folder))

    def _model(self, event: dict[str, Any]) -> None:
        from flame_core.tracking.registry import PACKAGE, log_model

        with self._files({f"{PACKAGE}/{name}": kept for name, kept in event["files"].items()}) as folder:
            package = folder / PACKAGE  # its name is kept in the logged model
            self.state.model_id = log_model(self.client, str(self.state.experiment_id), self._run_id, package, event)
        self.journal.mark(self.state)

    def _external(self, event: dict[str, Any]) -> None:
        from flame_core.tracking.registry import log_external_model

        self.state.model_id = log_external_model(self.client, str(self.state.experiment_id), self._run_id, event)
        self.journal.mark(self.state)

    def _version(self, event: dict[str, Any]) -> None:
        from flame_core.tracking.registry import register

        if self.state.model_id is None:
            log.warning("the model of %s could not be logged, so it gets no version", self.journal.key)
            return
        run = self.client.get_run(self._run_id)
        url = run_url(self.address, run.info.experiment_id, self._run_id)
        origin = f"Trained in [MLflow run {run.info.run_name}]({url}) by {dagster_link(run.data.tags)}."
        card = self.journal.file(event["card"]).read_text("utf-8")
        description = f"{card}\n## Origin\n{origin}\n"
        self.state.version = register(
            self.client, event["name"], self._run_id, self.state.model_id, event["tags"], description
        )
        self.journal.mark(self.state)

    def _end(self, event: dict[str, Any]) -> None:
        self.client.set_terminated(self._run_id, event["status"], event["time"])

    # --- details ---

    @property
    def _run_id(self) -> str:
        if self.state.run_id is None:
            raise InputError(f"{self.journal.folder}: the journal does not begin with a start")
        return self.state.run_id

    def _run_exists(self) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(self._run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _find_run(self) -> str | None:
        found = self.client.search_runs([str(self.state.experiment_id)], f"tags.`{KEY_TAG}` = '{self.journal.key}'")
        return found[0].info.run_id if found else None

    @contextmanager
    def _files(self, files: dict[str, str]) -> Iterator[Path]:
        """A folder of an event's files under their own names."""
        with tempfile.TemporaryDirectory(dir=self.journal.folder) as folder:
            for name, kept in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.journal.file(kept), path)
            yield Path(folder)


def _outage(address: str, call: Callable[[], T]) -> T:
    """Call a store; whatever goes wrong there is an outage, so that it can never stop a training."""
    try:
        return call()
    except Outage:
        raise
    except Exception as error:  # the stores of MLflow raise those of HTTP, SQL and cloud libraries
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise Outage(f"MLflow at {address} did not answer as it should: {reason[0][:300]}") from error
