"""Reports stages that ran outside Dagster, such as by `dvc repro` in a shell, as materializations without a run.

For any DVC project:

    defs = dg.Definitions(assets=dvc_assets(project), sensors=[dvc_lock_sensor(project)])
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from flame_core.dvc_project.errors import PROJECT_FILE, DvcBusyError, DvcProjectError
from flame_core.dvc_project.lock import LockedStage
from flame_core.dvc_project.project import DvcProject, Stage
from orchestration.dagster_dvc.assets import DATA_VERSION_TAG, ReadChecks, ReadNumbers, asset_key, run_metadata
from orchestration.dagster_dvc.check_evaluation import check_evaluation
from orchestration.dagster_dvc.run import StageRun, recall
from orchestration.dagster_dvc.stage_meta import stage_meta

CODE_VERSION_TAG = "dagster/code_version"
INPUT_VERSION_TAG, INPUT_POINTER_TAG = "dagster/input_data_version", "dagster/input_event_pointer"


def dvc_lock_sensor(
    project: DvcProject,
    stages: Mapping[str, Stage] | None = None,
    *,
    read_checks: ReadChecks | None = None,
    read_numbers: ReadNumbers | None = None,
) -> dg.SensorDefinition:
    """A sensor that reports stages that ran outside Dagster: their outs in `dvc.lock` differ from those Dagster knows.

    Each becomes a materialization without a run, with its code version, its data version and those of its inputs, and
    with the checks and numbers stored with the data. Stages of a run in progress are left to that run. A stage
    whose checks cannot be shown is left out, and the tick says why.
    """
    stages = stages or project.stages()
    keys = {name: asset_key(name) for name in stages}

    @dg.sensor(
        name="dvc_lock",
        description="Shows stages that ran outside Dagster, such as `dvc repro` in a shell, as materializations.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            locked = project.locked()
        except DvcBusyError as busy:
            return dg.SkipReason(f"{PROJECT_FILE} is in use. {busy}")
        except DvcProjectError as error:
            return dg.SkipReason(str(error))
        busy_keys = _keys_in_progress(context.instance) & set(keys.values())
        events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
        refused: list[str] = []
        for stage in stages.values():
            entry, key = locked.get(stage.name), keys[stage.name]
            if entry is None or key in busy_keys or _known(context.instance, key) == entry.data_version:
                continue
            declared = stage_meta(stage).checks
            try:
                results = list(read_checks(project, stage, declared)) if read_checks and declared else []
                numbers = read_numbers(project, stage) if read_numbers else {}
                events.append(_runless(project, stage, entry, locked, numbers))
            except (dg.Failure, DvcProjectError) as error:
                refused.append(str(error.description if isinstance(error, dg.Failure) else error))
                continue
            events += [check_evaluation(key, result) for result in results]
        why = f"Not shown: {'; '.join(refused)}" if refused else ""
        if events:
            return dg.SensorResult(asset_events=events, skip_reason=dg.SkipReason(why) if why else None)
        return dg.SkipReason(why or _why_not(locked, len(busy_keys)))

    return sensor


def _why_not(locked: Mapping[str, LockedStage], busy: int) -> str:
    """Why nothing is reported."""
    if not locked:
        return "There is no dvc.lock: no stage has run yet."
    if busy:
        return f"A run in progress reports its {busy} stages itself; Dagster knows all others of dvc.lock."
    return f"Dagster knows all {len(locked)} stages of dvc.lock: none has run outside it since."


def _keys_in_progress(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """Assets that a run in progress will report itself; a run may also be of a job that makes none of them."""
    return {
        entry.dagster_event.asset_key
        for run in instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS))
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        if entry.dagster_event and entry.dagster_event.asset_key
    }


_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def _known(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The data version that Dagster last saw."""
    event = instance.get_latest_materialization_event(key)
    return None if event is None else (event.tags or {}).get(DATA_VERSION_TAG)


def _runless(
    project: DvcProject,
    stage: Stage,
    entry: LockedStage,
    locked: Mapping[str, LockedStage],
    numbers: Mapping[str, float],
) -> dg.AssetMaterialization:
    tags = {DATA_VERSION_TAG: entry.data_version, CODE_VERSION_TAG: entry.code_version}
    read = {dep.path: dep.digest for dep in entry.deps}
    for name in stage.upstream:
        if (up := locked.get(name)) is None:
            continue
        # An upstream out is compared only if it is recorded as a dep under the same path.
        same = all(read.get(out.path, out.digest) == out.digest for out in up.outs)
        tags[f"{INPUT_VERSION_TAG}/{asset_key(name).to_user_string()}"] = up.data_version if same else "older"
        tags[f"{INPUT_POINTER_TAG}/{asset_key(name).to_user_string()}"] = "NULL"
    return dg.AssetMaterialization(
        asset_key(stage.name),
        metadata=run_metadata(
            stage,
            StageRun("ran outside Dagster", ("dvc.lock changed",), entry, recall(project, stage.name, entry)),
            numbers,
        ),
        tags=tags,
    )
