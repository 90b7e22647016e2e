"""Brings one DVC stage up to date inside a Dagster step.

First, DVC's status is read in this process, which takes a fraction of a second. A stage with an ancestor that is not up
to date is refused, with that ancestor's name, because `dvc repro --single-item` would silently build on it. An
unchanged stage is done. Anything else runs as `dvc --wait-for-lock repro --single-item <stage>` under Dagster Pipes:
the stage's process inherits the Pipes session through DVC and may report log lines and metadata, but does not have to.

If the run is terminated or its process killed, or `dvc` is killed while its stage continues, the stage's whole process
tree is ended (`process_trees/tree.py`). Processes left behind by a killed run of this project are ended by the next
run, before anything else. If another DVC process uses a path, the step waits, and the log names that process.

Messages go to Dagster's logger: they are in the run's log and, if Python's logging has a handler, on the terminal.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from dagster._core.definitions.metadata.external_metadata import metadata_map_from_external
from dagster._core.pipes.context import build_external_execution_context_data
from dagster_shared.serdes.errors import DeserializationError

from flame_core.dvc_project.absent import NotPulledError, require_pulled
from flame_core.dvc_project.errors import DvcBusyError
from flame_core.dvc_project.lock import LockedStage, sort_lock
from flame_core.dvc_project.project import DvcProject
from flame_core.dvc_project.repo import busy_path, release_dead, temporary_folder
from flame_core.dvc_project.stage_processes import DVC, end_abandoned, tree_label
from flame_core.process_trees.shown import ShownProcess
from flame_core.process_trees.tree import ProcessTree
from orchestration.dagster_dvc.pipes_messages import MessageReader

Context = dg.AssetExecutionContext | dg.OpExecutionContext
T = TypeVar("T")
UNCHANGED, RESTORED, COMPUTED = "unchanged", "restored from DVC's run cache", "computed"
_LOOK_SECONDS = 5.0  # between two looks at whether the run goes on
_SHOWN_LINES = 20  # of a failed stage
_REMEMBERED = 20  # reports kept per stage, one per data version
_EXITED = re.compile(r"failed to run: .*, exited with (-?\d+)")
_DVC_ERRORS = ("ERROR: failed to reproduce", "ERROR: failed to run", "Running stage '", "> ")
_DVC_ADVICE = re.compile(  # useful in a shell, but repeated for every stage here
    r"Use `dvc push`|To track the changes with git|\tgit add |To enable auto staging|\tdvc config core\.autostage"
    r"|(Updating|Generating) lock file "
)
log = dg.get_dagster_logger("dvc")


@dataclass(frozen=True)
class Runner:
    """How stages are run.

    Attributes:
        environment: variables that are added to theirs.
        outdated: of a stage that DVC sees no change in, why it runs all the same; "" if it does not.
        dvc: what begins a command line of DVC.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    outdated: Callable[[Path, str], str] = lambda root, stage: ""
    dvc: Sequence[str] = tuple(DVC)
    grace_seconds: float = 60.0  # for a stage to stop before it is killed
    busy_seconds: float = 6 * 3600.0  # for another DVC process to finish with a path


@dataclass(frozen=True)
class StageRun:
    """The result of bringing a stage up to date. `reported` is the metadata its process sent through Pipes."""

    outcome: str
    reasons: tuple[str, ...]
    locked: LockedStage
    reported: Mapping[str, Any]


class StageFailed(Exception):
    """A stage's command failed; has its exit code, its last lines, and what it reported before."""

    def __init__(self, stage: str, code: int, lines: list[str], reported: Mapping[str, Any]) -> None:
        super().__init__(f"{stage} failed with exit code {code}:\n" + "\n".join(lines))
        self.code = code
        self.reported = reported


def bring_up_to_date(context: Context, project: DvcProject, stage: str, runner: Runner, force: bool) -> StageRun:
    """Run a stage if DVC sees a change or `force` is set.

    Raises:
        dagster.Failure: an ancestor is not up to date, outs only have to be pulled, or a path stayed busy; retrying
            would not help.
        StageFailed: the command failed; has its last lines.
    """
    end_abandoned(project.root, runner.grace_seconds, log.warning)
    changes = _patient(project, runner, lambda: project.changes(stage))
    reasons = tuple(changes.pop(stage, ()))
    if changes:
        why = "; ".join(f"{name} ({', '.join(what)})" for name, what in sorted(changes.items()))
        _require_pulled(project, stage, runner)
        raise dg.Failure(
            f"{stage} needs stages that are not up to date: {why}. Materialize {', '.join(sorted(changes))} first.",
            allow_retries=False,
        )
    if reasons and not force:
        _require_pulled(project, stage, runner)
    outcome, reported = UNCHANGED, {}
    why = "asked to look again" if force else runner.outdated(project.root, stage)
    if why:
        reasons, force = (*reasons, why), True
    if reasons:
        log.info(f"{stage}: {'; '.join(reasons)}")
        outcome, reported = _repro(context, project, stage, runner, force)
    else:
        log.info(f"{stage}: {outcome}")
    locked = _patient(project, runner, project.locked)[stage]
    if reported:
        _remember(project, stage, locked, reported)
    return StageRun(outcome, reasons, locked, reported or recall(project, stage, locked))


def _require_pulled(project: DvcProject, stage: str, runner: Runner) -> None:
    """Refuse to compute what a remote has."""
    try:
        _patient(project, runner, lambda: require_pulled(project.root, [stage], warn=log.warning))
    except NotPulledError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _remember(project: DvcProject, stage: str, locked: LockedStage, reported: Mapping[str, Any]) -> None:
    """Store a stage's report with DVC's temporary files, for when the same data come from the cache."""
    path = _memory(project, stage, locked)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(dg.serialize_value(dict(reported)), "utf-8")  # even if it is there: its time counts below
        beside.replace(path)
        for old in sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)[:-_REMEMBERED]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning(f"{stage}: its report is not kept for later runs ({error})")


def recall(project: DvcProject, stage: str, locked: LockedStage) -> Mapping[str, Any]:
    """The stage's report when it last made the same data, so that a cached stage keeps its pictures and numbers."""
    try:
        return dg.deserialize_value(_memory(project, stage, locked).read_text("utf-8"), dict)
    except (OSError, ValueError, DeserializationError):
        return {}


def _memory(project: DvcProject, stage: str, locked: LockedStage) -> Path:
    return temporary_folder(project.root) / "dagster" / stage / f"{locked.data_version}.json"


def _patient(project: DvcProject, runner: Runner, ask: Callable[[], T]) -> T:
    """`ask()`, repeated while another DVC process is in the way."""
    deadline = time.monotonic() + runner.busy_seconds
    said = ""
    while True:
        try:
            return ask()
        except DvcBusyError as busy:
            said = _wait(project, str(busy), said, deadline)


def _wait(project: DvcProject, why: str, said: str, deadline: float) -> str:
    if time.monotonic() > deadline:
        raise dg.Failure(f"Waited too long for another DVC process. {why}", allow_retries=False)
    if why != said:
        log.info(f"Waiting for another DVC process. {why}")
    for dead in release_dead(project.root):
        log.info(f"Released the paths of {dead}, which has ended.")
    time.sleep(1.0)
    return why


def _repro(
    context: Context, project: DvcProject, stage: str, runner: Runner, force: bool
) -> tuple[str, Mapping[str, Any]]:
    command = [*runner.dvc, "--wait-for-lock", "repro", "--single-item", stage]
    if force:
        command.insert(-1, "--force")
    deadline = time.monotonic() + runner.busy_seconds
    said = ""
    while True:
        with _pipes(context) as session:
            code, lines = _run(context, command, project, runner, session.get_bootstrap_env_vars())
        text = "\n".join(lines)
        busy = busy_path(text)
        if code == 0:
            restored = any(line.endswith("is cached - skipping run, checking out outputs") for line in lines)
            _patient(project, runner, lambda: sort_lock(project.root))
            return (RESTORED if restored else COMPUTED), _reported(session)
        if busy is None:
            exited = _EXITED.search(text)
            raise StageFailed(stage, int(exited[1]) if exited else code, _last_words(lines), _reported(session))
        said = _wait(project, busy, said, deadline)


def _run(
    context: Context, command: list[str], project: DvcProject, runner: Runner, pipes: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Run `command` and show its output; returns its exit code and last lines."""
    tree = ProcessTree(tree_label(project.root))
    environment = {**os.environ, **runner.environment, **pipes, **tree.environment()}
    process = ShownProcess(command, project.root, environment, _DVC_ADVICE)
    look = time.monotonic() + _LOOK_SECONDS
    try:
        while (code := process.poll()) is None:
            time.sleep(0.05)
            if time.monotonic() > look:
                _require_run(context)
                look = time.monotonic() + _LOOK_SECONDS
    except BaseException:
        _stop(tree, process, runner)
        said = "".join(f" Its last words: {line}" for line in _last_words(process.lines())[-1:])
        log.info(f"{command[-1]} has stopped. What was finished is kept: materialize it again to go on.{said}")
        raise
    if code and tree.members():  # `dvc` was killed and has lost its locks, so the stage must not go on writing
        log.warning(f"dvc ended with code {code} while its stage was running; ending the stage")
        tree.stop(None, runner.grace_seconds, log.info)
    return code, process.lines()


def _require_run(context: Context) -> None:
    """Fail a step whose run has ended without it: the run's process was killed, or a person forced its end."""
    run_id = context.run.run_id
    try:
        run = context.instance.get_run_by_id(run_id)
    except Exception:  # of the history's database, which may be busy: looked at again soon
        return
    if run is not None and run.is_finished:
        raise dg.Failure(f"The run has ended ({run.status.value}), so its stage is stopped.", allow_retries=False)


def _stop(tree: ProcessTree, process: ShownProcess, runner: Runner) -> None:
    """Stop the tree, even if this process is interrupted meanwhile."""
    while True:
        try:
            tree.stop(process.pid, runner.grace_seconds, log.info)
            process.wait()
            return
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            continue


@contextmanager
def _pipes(context: Context) -> Iterator[dg.PipesSession]:
    """A Pipes session that does not require messages: a stage may be restored from the cache, or not use Pipes."""
    with warnings.catch_warnings():  # Dagster's, about its own API
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        handler = dg.PipesMessageHandler(context, MessageReader())
        data = build_external_execution_context_data(context, None)
    with dg.PipesTempFileContextInjector().inject_context(data) as injected, handler.handle_messages() as reading:
        yield dg.PipesSession(data, handler, injected, reading, context)


def _reported(session: dg.PipesSession) -> Mapping[str, Any]:
    """Metadata that the stage's process reported.

    Either all at the end, with `report_asset_materialization(metadata)`, or step by step, with
    `report_custom_message({"metadata": {name: {"raw_value": ..., "type": ...}}})`, which is kept if the stage fails.
    """
    metadata: dict[str, Any] = {}
    for message in session.get_custom_messages():
        if isinstance(message, Mapping) and "metadata" in message:
            metadata |= metadata_map_from_external(message["metadata"])
    for result in session.get_reported_results():
        if isinstance(result, dg.MaterializeResult):
            metadata |= result.metadata or {}
    return metadata


def _last_words(lines: list[str]) -> list[str]:
    """The last lines of a stage's own output."""
    own = [line for line in lines if line and not line.startswith(_DVC_ERRORS)]
    return own[-_SHOWN_LINES:] or lines[-_SHOWN_LINES:]
