"""What training calls: one MLflow run a training, continued after any interruption.

    with track_training(params, layout, recipe, digest) as run:
        ...                                 # steps.StepRecorder(...).record(row) after every step, at run.journal
        run.trained(rows, weights)

Everything goes to the run's journal (`journal`); a shipper delivers it beside. Where tracking is off, the same calls
do nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flame_core import reporting
from flame_core.digest import file_sha256
from flame_core.errors import Interrupted
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.tracking import provenance, shipper
from flame_core.tracking.journal import Journal
from flame_core.tracking.notes import NOTE_TAG, note
from flame_core.tracking.steps import StepRecorder, now
from flame_core.tracking.store import journals, run_url, tracking_address, version_url

KEY_LENGTH = 16  # of a journal's name
log = logging.getLogger(__name__)


class TrainingRun:
    """The record of one training. Without a journal (tracking is off) nothing is recorded."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        kinds = [(event["kind"], event.get("status")) for event, _ in journal.events()] if journal else []
        self._started = bool(kinds)
        self.complete = ("end", "FINISHED") in kinds  # all of this training is recorded

    @property
    def journal(self) -> Path | None:
        """Folder of the journal, for the process that trains (`steps.StepRecorder`)."""
        return self._journal.folder if self._journal else None

    def open(self, params: Params, layout: Layout, recipe: str) -> None:
        """Record the start, or that it goes on."""
        if self._journal is None:
            return
        about = {**provenance.tags(params, layout), **provenance.dagster_tags()}
        datasets = provenance.datasets(params, layout)
        tags = {"flame.recipe": recipe, **about, NOTE_TAG: note(about, datasets)}
        start = {"kind": "start", "time": now(), "name": f"{recipe}-{self._journal.key[:8]}", "tags": tags}
        if self._started:
            self._journal.append(start)
            return
        described = [
            {"kind": "params", "params": provenance.flat_params(params, recipe)},
            {"kind": "inputs", "context": "training", "datasets": datasets},
            self._artifacts({path.name: path for path in (layout.params, layout.root / provenance.LOCK)}),
        ]
        self._journal.append(start, *described)

    def trained(self, rows: Sequence[Mapping[str, float]], weights: Path) -> None:
        """Record the end, with what is missing where the training was found in the work cache."""
        if self._journal is None or self.complete:
            return
        recorder = StepRecorder(self._journal)
        for row in rows:
            recorder.record(row)
        sha256 = file_sha256(weights)
        self._journal.append(
            {"kind": "tags", "tags": {"flame.model_sha256": sha256}},
            {"kind": "end", "status": "FINISHED", "time": now()},
        )
        self._journal.remember_model(sha256)
        self.complete = True

    def failed(self, error: BaseException) -> None:
        """Record an end before the end: KILLED where the training will resume, FAILED otherwise."""
        if self._journal is None or self.complete:  # then it failed after the training, such as in the delivery
            return
        status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        reason = f"{type(error).__name__}: {error}"[:500]
        self._journal.append(
            {"kind": "tags", "tags": {"flame.stopped_by": reason}}, {"kind": "end", "status": status, "time": now()}
        )

    def _artifacts(self, files: Mapping[str, Path]) -> dict[str, Any]:
        assert self._journal
        return {
            "kind": "artifacts",
            "files": {name: self._journal.keep(path) for name, path in files.items() if path.is_file()},
        }


@contextmanager
def track_training(params: Params, layout: Layout, recipe: str, digest: str) -> Iterator[TrainingRun]:
    """The run of the training of that digest; a shipper delivers it for as long as the context is open."""
    address = tracking_address(layout)
    if address is None:
        yield TrainingRun(None)
        return
    journal = Journal(journals(layout) / digest[:KEY_LENGTH])
    run = TrainingRun(journal)
    if run.complete and not journal.pending(address):
        yield TrainingRun(None)  # nothing happens that was not recorded
        show_links(journal, address)
        return
    if not run.complete:
        run.open(params, layout, recipe)
    with shipping(journal, address):
        try:
            yield run
        except BaseException as error:
            run.failed(error)
            raise
    show_links(journal, address)


@contextmanager
def shipping(journal: Journal, address: str) -> Iterator[None]:
    """Deliver a journal beside what happens in the context; what an outage leaves behind is said."""
    process = shipper.start(journal, address)
    try:
        yield
    finally:
        if not shipper.finish(process):
            log.warning(
                "%d events of this run wait in %s; the next run sends them, or `flame tracking replay`",
                journal.pending(address),
                journal.folder,
            )


def show_links(journal: Journal, address: str) -> None:
    """Show where MLflow has the run and the model version."""
    state = journal.delivered(address)
    if state.run_id and state.experiment_id:
        reporting.link("MLflow run", run_url(address, state.experiment_id, state.run_id))
    if state.version:
        reporting.link("MLflow model", version_url(address, settings().registered_model, state.version))
