"""Delivers a journal's events to MLflow: in order, and each once if possible.

The delivery mark moves after every batch. An event whose answer was lost is sent again, which is harmless: MLflow keeps
one of two equal metric points, a run is looked up by its key before one is created, files, tags and datasets replace
themselves, and no alias moves back (`registry.register`).

A run or experiment that a person deleted in MLflow is not created again: its events wait, and a warning says how to
restore it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.errors import InputError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import scratch
from flame_core.settings import settings
from flame_core.tracking.address import without_secrets
from flame_core.tracking.inputs import CONTEXT
from flame_core.tracking.journal import EVENTS, KEY_TAG, Delivered, Journal
from flame_core.tracking.kept_files import copy_file
from flame_core.tracking.metric_names import metric_name
from flame_core.tracking.notes import dagster_link
from flame_core.tracking.obstacles import is_refusal, outage, require_experiment, require_run
from flame_core.tracking.pages import run_url
from flame_core.tracking.store import experiment_id, open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_BATCH = 1000  # metrics that MLflow accepts at once
_PARAM_LENGTH = 6000  # characters per param that MLflow keeps
_PARAMS = 100  # params that MLflow accepts at once
log = logging.getLogger(__name__)


def deliver(journal: Journal, address: str) -> int:
    """Send the events that have not arrived yet and return their number (0 if another process is sending).

    Raises:
        Outage: the server cannot be reached, or fails.
    """
    with journal.delivering() as allowed:
        if not allowed or not journal.pending(address):
            return 0
        return _Delivery(journal, address).run()


class _Delivery:
    def __init__(self, journal: Journal, address: str) -> None:
        self.journal = journal
        self.address = address
        self.state = journal.delivered(address)
        self.client: MlflowClient = outage(address, lambda: open_client(address))
        if self.state.run_id and not outage(address, self._run_exists):
            log.warning("MLflow at %s no longer has run %s; sending all of it again", address, self.state.run_id)
            self.state = Delivered(address)

    def run(self) -> int:
        sent = 0
        damaged = 0
        points: list[dict[str, Any]] = []
        end = self.state.position
        for event, position in self.journal.lines(self.state.position):
            if event is None or (event["kind"] == "metrics" and not _is_point(event)):
                damaged += 1
                continue
            if event["kind"] != "metrics" or sum(len(point["values"]) for point in points) >= _BATCH:
                self._send_points(points, end)
                points = []
            if event["kind"] == "metrics":
                points.append(event)
            else:
                self._send(event["kind"], partial(self._one, event), position)
            end = position
            sent += 1
        self._send_points(points, end)
        if damaged:
            log.warning("%d damaged lines of %s are left out; the rest was sent", damaged, self.journal.folder / EVENTS)
        return sent

    def _send_points(self, points: list[dict[str, Any]], position: int) -> None:
        if points:
            self._send("metrics", partial(self._metrics, points), position)

    def _one(self, event: dict[str, Any]) -> None:
        """Send an event other than metrics."""
        calls = {
            "start": self._start,
            "params": self._params,
            "tags": self._tags,
            "inputs": self._inputs,
            "artifacts": self._artifacts,
            "model": self._model,
            "external": self._external,
            "version": self._version,
            "end": self._end,
        }
        if event["kind"] not in calls:
            raise InputError(f"{self.journal.folder / EVENTS}: {event['kind']!r} is not a known kind of event")
        calls[event["kind"]](event)

    def _send(self, what: str, call: Callable[[], None], position: int) -> None:
        """Make a call and move the mark; a permanent refusal by MLflow only gives a warning."""
        from mlflow.exceptions import MlflowException

        def careful() -> None:
            try:
                call()
            except MlflowException as error:
                if what == "start" or not is_refusal(error):
                    raise
                self._require_not_deleted()
                said = without_secrets(str(error.message), settings().tracking_uri).strip().partition("\n")[0]
                log.warning("MLflow refused %s of %s: %s", what, self.journal.key, said[:300])
            except InputError as error:
                log.warning("not sent to MLflow: %s", error)
            except (AttributeError, KeyError, TypeError) as error:  # damage in an old journal without checksums
                log.warning("not sent to MLflow: %s of %s cannot be read (%r)", what, self.journal.key, error)

        outage(self.address, careful)
        self.state.position = position
        self.journal.mark(self.state)

    # --- one method for each kind of event ---

    def _start(self, event: dict[str, Any]) -> None:
        """Find or create the run; later starts of the same training continue it."""
        self.state.run_id = self.state.run_id or self._find_run()
        if self.state.run_id is None:
            self._create_run(event["time"], event["tags"], event["name"])
        else:
            self.client.update_run(self._run_id, status="RUNNING")
            self._tags(event)
        self.journal.mark(self.state)

    def _create_run(self, time: int | None, tags: Mapping[str, str], name: str) -> None:
        run = self.client.create_run(self._experiment_id, time, {**tags, KEY_TAG: self.journal.key}, name)
        self.state.run_id = run.info.run_id
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

        context = [InputTag(CONTEXT, event["context"])]
        datasets = [DatasetInput(Dataset(**dataset), tags=context) for dataset in event["datasets"]]
        self.client.log_inputs(self._run_id, datasets=datasets)

    def _metrics(self, events: Iterable[dict[str, Any]]) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

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
            batch = points[first : first + _BATCH]
            try:
                self.client.log_batch(self._run_id, metrics=batch)
            except MlflowException as error:
                if "unique" not in str(error).lower():  # MLflow accepts each metric of a model only once
                    raise
                there = self._model_metrics()
                left = [point for point in batch if point.model_id is None or _identity(point) not in there]
                if left and len(left) < len(batch):
                    self.client.log_batch(self._run_id, metrics=left)
                elif left:
                    raise

    def _model_metrics(self) -> set[tuple[str, int, int]]:
        """The metric points that MLflow has for the model."""
        if self.state.model_id is None:
            return set()
        return {_identity(point) for point in self.client.get_logged_model(self.state.model_id).metrics or ()}

    def _artifacts(self, event: dict[str, Any]) -> None:
        with self._files(event["files"]) as folder:
            self.client.log_artifacts(self._run_id, str(folder))

    def _model(self, event: dict[str, Any]) -> None:
        from flame_core.tracking.registry import PACKAGE, log_model

        with self._files({f"{PACKAGE}/{name}": kept for name, kept in event["files"].items()}, whole=True) as folder:
            package = folder / PACKAGE  # its name is kept in the logged model
            self.state.model_id = log_model(self.client, str(self.state.experiment_id), self._run_id, package, event)
        self.journal.mark(self.state)

    def _external(self, event: dict[str, Any]) -> None:
        from flame_core.tracking.registry import log_external_model

        self.state.model_id = log_external_model(self.client, self._experiment_id, self._run_id, event)
        self.journal.mark(self.state)

    def _version(self, event: dict[str, Any]) -> None:
        from flame_core.tracking.registry import register

        if self.state.model_id is None:
            log.warning("the model of %s could not be logged, so it gets no version", self.journal.key)
            return
        run = self.client.get_run(self._run_id)
        url = run_url(self.address, run.info.experiment_id, self._run_id)
        origin = f"Trained in [MLflow run {run.info.run_name}]({url}) by {dagster_link(run.data.tags)}."
        try:
            card = self.journal.file(event["card"]).read_text("utf-8")
        except InputError as error:  # the version matters more than its description
            log.warning("the model card is not sent: %s", error)
            card = "The model card was damaged before it arrived here.\n"
        self.state.version = register(
            self.client, event["name"], self._run_id, self.state.model_id, event, f"{card}\n## Origin\n{origin}\n"
        )
        self.journal.mark(self.state)

    def _end(self, event: dict[str, Any]) -> None:
        self.client.set_terminated(self._run_id, event["status"], event["time"])

    # --- details ---

    @property
    def _run_id(self) -> str:
        """The id of MLflow's run; if the journal's start line is damaged, the run has no tags."""
        if self.state.run_id is None:
            self.state.run_id = self._find_run()
        if self.state.run_id is None:
            log.warning("%s does not begin with a start; its run in MLflow lacks tags", self.journal.folder / EVENTS)
            self._create_run(None, {}, self.journal.key)
        return str(self.state.run_id)

    @property
    def _experiment_id(self) -> str:
        """The id of the experiment, created if it does not exist.

        Raises:
            Withheld: a person deleted it.
        """
        if self.state.experiment_id is None:
            self.state.experiment_id = experiment_id(self.client, self.address)
            require_experiment(self.client, self.address, self.state.experiment_id)
        return self.state.experiment_id

    def _run_exists(self) -> bool:
        """Whether the server knows the run and its experiment.

        Raises:
            Withheld: a person deleted one of them.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._require_not_deleted()
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _require_not_deleted(self) -> None:
        """Raise `Withheld` if the run or its experiment is deleted."""
        if self.state.run_id:
            self.state.experiment_id = require_run(self.client, self.address, self.state.run_id)
        elif self.state.experiment_id:
            require_experiment(self.client, self.address, self.state.experiment_id)

    def _find_run(self) -> str | None:
        """The id of the training's run, if there is one.

        Raises:
            Withheld: a person deleted it.
        """
        from mlflow.entities import ViewType

        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            found = self.client.search_runs([self._experiment_id], f"tags.`{KEY_TAG}` = '{self.journal.key}'", view)
            if found:
                run_id = found[0].info.run_id
                require_run(self.client, self.address, run_id)
                return run_id
        return None

    @contextmanager
    def _files(self, files: dict[str, str], whole: bool = False) -> Iterator[Path]:
        """A folder with an event's files under their own names. Damaged files are left out, unless `whole` is set.

        Raises:
            InputError: a file is damaged, and `whole` is set.
            ResourceError: the disk is full, or the user may not write there.
        """
        with scratch(self.journal.folder) as folder:
            with clear_disk_errors(self.journal.folder):
                self._copy(files, folder, whole)
            yield folder

    def _copy(self, files: dict[str, str], folder: Path, whole: bool) -> None:
        """Copy an event's files into a folder, as `_files`."""
        for name, kept in files.items():
            try:
                source = self.journal.file(kept)
            except InputError as error:
                if whole:
                    raise
                log.warning("%s is not sent to MLflow: %s", name, error)
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            copy_file(source, path)


def _is_point(event: Mapping[str, Any]) -> bool:
    """Whether a metrics event is complete; a damaged one in an old journal must not make its whole batch fail."""
    values = event.get("values")
    numbers = [event.get("time"), event.get("step"), *(values.values() if isinstance(values, dict) else [None])]
    return all(isinstance(number, int | float) for number in numbers)


def _identity(point: Metric) -> tuple[str, int, int]:
    """The values by which MLflow distinguishes two points of one model within a run."""
    return point.key, point.timestamp, point.step
