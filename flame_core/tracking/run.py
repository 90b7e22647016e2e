"""The record of a training: one MLflow run per training, continued after any interruption.

    with track_training(params, layout, recipe, trained, digest) as run:
        ...                                 # steps.StepRecorder(...).record(row) after every step, at run.journal
        run.trained(rows, weights)

Everything is written to the run's journal (`journal`); a shipper process delivers it. If tracking is off, the same
calls do nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flame_core.digest import file_sha256
from flame_core.errors import Interrupted
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.params import Params, TrainParams
from flame_core.settings import settings
from flame_core.tracking import provenance, shipper
from flame_core.tracking.initial_weights import init_tags
from flame_core.tracking.inputs import TRAINING
from flame_core.tracking.journal import MODEL_TAG, Journal
from flame_core.tracking.linked import linked_tags
from flame_core.tracking.notes import NOTE_TAG, note
from flame_core.tracking.pages import run_url, served, show_pages, version_url
from flame_core.tracking.stage_metrics import adapter_metrics, record_stage, selection_metrics
from flame_core.tracking.steps import StepRecorder, now
from flame_core.tracking.store import journals, tracking_address

KEY_LENGTH = 16  # of a journal's name
log = logging.getLogger(__name__)


class TrainingRun:
    """The record of one training. Without a journal (tracking is off) nothing is recorded.

    A failure to record gives a warning and never ends a training.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._kinds: set[str] = set()
        self.complete = False  # all of this training is recorded
        if journal:
            with harmless("what was recorded before"):
                events = [event for event, _ in journal.events()]
                self._kinds = {event["kind"] for event in events}
                self.complete = any(event["kind"] == "end" and event.get("status") == "FINISHED" for event in events)

    @property
    def journal(self) -> Path | None:
        """Folder of the journal, for the process that trains (`steps.StepRecorder`)."""
        return self._journal.folder if self._journal else None

    def open(self, params: Params, layout: Layout, recipe: str, trained: TrainParams) -> None:
        """Record the start or the continuation, and the parts of its description that are not recorded yet."""
        if self._journal is None:
            return
        with harmless("the start of the training"):
            about = {**provenance.tags(params, layout), **provenance.dagster_tags()}
            datasets = provenance.datasets(params, layout, trained.reading)
            tags = {
                "flame.recipe": recipe,
                **linked_tags(params, layout, recipe),
                **init_tags(params, layout, recipe),
                **about,
                NOTE_TAG: note(about, datasets),
            }
            described = [
                {"kind": "start", "time": now(), "name": f"{recipe}-{self._journal.key[:8]}", "tags": tags},
                {"kind": "params", "params": provenance.flat_params(params, layout, trained)},
                {"kind": "inputs", "context": TRAINING, "datasets": datasets},
                {"kind": "artifacts", "files": self._keep(provenance.files(layout))},
            ]
            self._journal.append(
                *(each for each in described if each["kind"] == "start" or each["kind"] not in self._kinds)
            )
        with harmless("the selection"):
            if (selection := links(layout, trained).get("selection")) is not None:
                record_stage(self._journal, "select", [selection_metrics(selection)])
        with harmless("the LLM's adapters"):
            if params.adapt_llm is not None and trained.text_tower is None:
                record_stage(self._journal, "adapt_llm", adapter_metrics(layout.llm_adapter))

    def trained(self, rows: Sequence[Mapping[str, float]], weights: Path) -> None:
        """Record the end, and steps not recorded yet (if the training was found in the work cache)."""
        if self._journal is None or self.complete:
            return
        with harmless("the end of the training"):
            recorder = StepRecorder(self._journal)
            for row in rows:
                recorder.record(row)
            sha256 = file_sha256(weights)
            self._journal.append(
                {"kind": "tags", "tags": {MODEL_TAG: sha256}},
                {"kind": "end", "status": "FINISHED", "time": now()},
            )
            self._journal.remember_model(sha256)
        self.complete = True

    def failed(self, error: BaseException) -> None:
        """Record an early end: KILLED if the training will resume, FAILED otherwise."""
        if self._journal is None or self.complete:  # then it failed after the training, such as in the delivery
            return
        status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        reason = f"{type(error).__name__}: {error}"[:500]
        with harmless("why the training stopped"):
            self._journal.append(
                {"kind": "tags", "tags": {"flame.stopped_by": reason}},
                {"kind": "end", "status": status, "time": now()},
            )

    def _keep(self, files: Sequence[Path]) -> dict[str, str]:
        assert self._journal
        return {path.name: self._journal.keep(path) for path in files}


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Turn any error in the context into a warning, so that tracking never ends a training."""
    try:
        yield
    except Exception as error:  # from the disk, damaged records, or packages that describe the machine
        log.warning("not recorded: %s (%s: %s)", what, type(error).__name__, error)


@contextmanager
def track_training(
    params: Params, layout: Layout, recipe: str, trained: TrainParams, digest: str
) -> Iterator[TrainingRun]:
    """The run of the training with this digest; a shipper delivers it while the context is open.

    Args:
        params: of the whole run.
        layout: of the run.
        recipe: its name.
        trained: the recipe as it is trained, with values in place of `auto`.
        digest: of the training.
    """
    address = tracking_address(layout)
    if address is None:
        yield TrainingRun(None)
        return
    journal = Journal(journals(layout) / digest[:KEY_LENGTH])
    run = TrainingRun(journal)
    waiting = 0
    with harmless("how much of it has arrived"):
        waiting = journal.pending(address)
    if run.complete and not waiting:
        yield TrainingRun(None)  # everything is already recorded
        with harmless("the way to the pages"):
            show_links(journal, address)
        return
    if not run.complete:
        run.open(params, layout, recipe, trained)
    with shipping(journal, address):
        try:
            yield run
        except BaseException as error:
            run.failed(error)
            raise
    with harmless("the way to the pages"):
        show_links(journal, address)


def track_stage(layout: Layout, recipe: str, stage: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Record what a stage found out about a recipe's model.

    Args:
        layout: of the run.
        recipe: whose model it is.
        stage: the stage's name.
        rows: metrics {name: value} of the steps 0, 1, ...
    """
    address = tracking_address(layout)
    if address is None:
        return
    with harmless(f"what {stage} says about {recipe}"):
        journal = Journal.of_model(journals(layout), file_sha256(layout.model(recipe) / WEIGHTS))
        if journal is None:
            log.warning("the training of %s was not tracked, so what %s says about it is not either", recipe, stage)
            return
        record_stage(journal, stage, rows)
        if journal.pending(address):
            with shipping(journal, address):
                pass
        show_links(journal, address)


@contextmanager
def shipping(journal: Journal, address: str) -> Iterator[None]:
    """Deliver a journal while the context is open; warn if events are still waiting at its end."""
    process = None
    with harmless("anything at MLflow for now"):
        process = shipper.start(journal, address)
    try:
        yield
    finally:
        with harmless("how much of it waits"):
            if process is None or not shipper.finish(process):
                log.warning(
                    "%d events of this run wait in %s; the next run sends them, or `flame tracking replay`",
                    journal.pending(address),
                    journal.folder,
                )


def show_links(journal: Journal, address: str) -> None:
    """Show the MLflow pages of the run and the model version."""
    state = journal.delivered(address)
    if not state.run_id or not state.experiment_id:
        return
    pages = {"MLflow run": run_url(address, state.experiment_id, state.run_id)}
    if state.version:
        pages["MLflow model"] = version_url(address, settings().registered_model, state.version)
    show_pages(pages, served(address, state.run_id))
