"""The stages of a `dvc.yaml` as Dagster assets, for any DVC project.

    project = DvcProject(Path("path/to/project"))
    defs = dg.Definitions(assets=dvc_assets(project), sensors=[dvc_lock_sensor(project)])

One asset a stage: `train@flame` is the asset `train/flame`. `dvc.yaml` stays the only DAG: names, commands,
descriptions (`desc:`), deps and outs are read from it, with templating and `matrix:` resolved, and the rest from
`meta:`, where every key is optional:

    stages:
      train:
        cmd: python train.py
        desc: Train the model.
        meta:
          dagster:
            group: training                      # default: "default"
            kinds: [pytorch]                     # added to "dvc"
            owners: [someone@example.org, team:vision]
            pool: gpu
            retries: {max: 3, delay_seconds: 30, exit_codes: [5]}    # exit_codes: all, unless listed
            freshness: {warn_days: 14, fail_days: 30}
            checks: [loss_went_down]             # names of the asset checks that `read_checks` reports

The code version of an asset is a digest of its command and its resolved params, the data version one of the paths and
hashes of its outs, as `dvc.lock` has them. So "unsynced" in Dagster is DVC's idea of change. Runs outside Dagster show
up through `dvc_lock_sensor`. How a stage is run, stopped and refused is told in `dvc_run.py`.

`dvc_project.py`, `dvc_run.py`, `process_tree.py` and this module need only dagster, dvc, pydantic and psutil.
"""
# No postponed annotations here: Dagster reads those of a step's context as they stand.

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.dvc_project import PROJECT_FILE, DvcBusyError, DvcProject, DvcProjectError, LockedStage, Stage
from orchestration.dvc_run import Context, Runner, StageFailed, StageRun, bring_up_to_date, recall

REFRESH_TAG = "refresh"  # a run's tag: names of stages, separated by commas, that are run with `--force`
ReadChecks = Callable[[DvcProject, Stage, Sequence[str]], Iterable[dg.AssetCheckResult]]
ReadTags = Callable[[DvcProject], Mapping[str, str]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retries(_Strict):
    max: int = Field(gt=0)
    delay_seconds: float = Field(default=10.0, gt=0)
    exit_codes: tuple[int, ...] = ()


class Freshness(_Strict):
    warn_days: float | None = None
    fail_days: float


class StageMeta(_Strict):
    """`meta: dagster:` of a stage."""

    group: str = "default"
    kinds: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    pool: str | None = None
    retries: Retries | None = None
    freshness: Freshness | None = None
    checks: tuple[str, ...] = ()


def stage_meta(stage: Stage) -> StageMeta:
    """What a stage's `meta:` says to Dagster.

    Raises:
        DvcProjectError: names the stage, the key and what is accepted.
    """
    try:
        return StageMeta.model_validate(stage.meta.get("dagster") or {})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        accepted = ", ".join(StageMeta.model_fields)
        raise DvcProjectError(
            f"{PROJECT_FILE}: stages.{stage.name}.meta.dagster: {'; '.join(faults)} (accepted: {accepted})"
        ) from None


def asset_key(stage: str) -> dg.AssetKey:
    """`train@flame` as train/flame."""
    return dg.AssetKey(stage.split("@", 1))


def op_name(stage: str) -> str:
    """A name that Dagster accepts for the step of a stage."""
    return re.sub(r"\W", "_", stage.replace("@", "__"), flags=re.ASCII)


def dvc_assets(
    project: DvcProject,
    stages: Mapping[str, Stage] | None = None,
    *,
    runner: Runner | None = None,
    read_checks: ReadChecks | None = None,
    read_tags: ReadTags | None = None,
) -> list[dg.AssetsDefinition]:
    """One asset a stage of the project's root `dvc.yaml`.

    Args:
        project: Where the stages are read from and run.
        stages: `project.stages()`, where they have been read already.
        runner: How they are run.
        read_checks: Called after a stage is up to date, with the names that its meta declares; returns one result for
            each. A failed result of severity ERROR stops what comes after it.
        read_tags: Tags for the run and its materializations, such as the git commit; called in each step.

    Raises:
        DvcProjectError: `dvc.yaml`, a params file or a stage's meta is broken; names the file, line and key.
    """
    stages = stages or project.stages()
    names: dict[str, str] = {}
    for name in stages:
        if (other := names.setdefault(op_name(name), name)) != name:
            raise DvcProjectError(f"{PROJECT_FILE}: stages {other} and {name} differ only in characters Dagster lacks")
    if read_checks is None and (stage := next((s for s in stages.values() if stage_meta(s).checks), None)):
        raise DvcProjectError(f"{PROJECT_FILE}: stage {stage.name} declares checks, and dvc_assets got no read_checks")
    return [_asset(project, stage, runner or Runner(), read_checks, read_tags) for stage in stages.values()]


def _asset(
    project: DvcProject,
    stage: Stage,
    runner: Runner,
    read_checks: ReadChecks | None,
    read_tags: ReadTags | None,
) -> dg.AssetsDefinition:
    meta = stage_meta(stage)
    key = asset_key(stage.name)
    spec = dg.AssetSpec(
        key,
        deps=[asset_key(name) for name in stage.upstream],
        description="\n\n".join(filter(None, (stage.description, f"```\n{stage.command}\n```"))),
        group_name=meta.group,
        kinds={"dvc", *meta.kinds},
        owners=list(meta.owners),
        code_version=stage.code_version,
        freshness_policy=_freshness(meta.freshness),
        metadata={"dvc/stage": stage.name, "dvc/deps": list(stage.deps), "dvc/outs": list(stage.outs)},
    )

    @dg.multi_asset(
        name=op_name(stage.name),
        specs=[spec],
        check_specs=[dg.AssetCheckSpec(name, asset=key, blocking=True) for name in meta.checks],
        pool=meta.pool,
        retry_policy=_retry_policy(meta.retries),
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        tags = dict(read_tags(project)) if read_tags else {}
        run = run_stage(context, project, stage, runner, tags)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(run.locked.data_version),
            metadata=run_metadata(stage, run),
            tags=tags,
            check_results=list(read_checks(project, stage, meta.checks)) if read_checks and meta.checks else [],
        )

    return materialize


def run_stage(context: Context, project: DvcProject, stage: Stage, runner: Runner, tags: Mapping[str, str]) -> StageRun:
    """Bring a stage up to date in a step of any kind; a failure ends it with the stage's own last lines.

    Raises:
        dagster.Failure: what failed, and whether a retry may help.
    """
    if tags:
        context.instance.add_run_tags(context.run.run_id, dict(tags))
    force = stage.name in context.run.tags.get(REFRESH_TAG, "").split(",")
    try:
        return bring_up_to_date(context, project, stage.name, runner, force)
    except DvcProjectError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except StageFailed as failed:
        retries = stage_meta(stage).retries
        transient = retries is not None and (not retries.exit_codes or failed.code in retries.exit_codes)
        raise dg.Failure(
            str(failed),
            metadata={"command": stage.command, "exit code": failed.code, **failed.reported},
            allow_retries=transient,
        ) from None


def run_metadata(stage: Stage, run: StageRun) -> dict[str, Any]:
    """What a materialization shows of a run, beside what the stage reported itself."""
    outs = [
        dg.TableRecord({"path": out.path, "digest": out.digest, "bytes": out.size or 0, "files": out.files or 1})
        for out in run.locked.outs
    ]
    return {
        **run.reported,
        "outcome": dg.MetadataValue.text(run.outcome),
        "because": dg.MetadataValue.text("; ".join(run.reasons) or "nothing changed"),
        "command": dg.MetadataValue.text(stage.command),
        "outs": dg.MetadataValue.table(outs, _OUTS) if outs else dg.MetadataValue.text("none"),
    }


_OUTS = dg.TableSchema(
    [
        dg.TableColumn("path"),
        dg.TableColumn("digest"),
        dg.TableColumn("bytes", "int"),
        dg.TableColumn("files", "int"),
    ]
)


def _freshness(freshness: Freshness | None) -> dg.FreshnessPolicy | None:
    if freshness is None:
        return None
    warn = None if freshness.warn_days is None else timedelta(days=freshness.warn_days)
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=freshness.fail_days), warn_window=warn)


def _retry_policy(retries: Retries | None) -> dg.RetryPolicy | None:
    if retries is None:
        return None
    return dg.RetryPolicy(retries.max, delay=retries.delay_seconds, backoff=dg.Backoff.EXPONENTIAL)


# --- runs outside Dagster ----------------------------------------------------------------------------------------

DATA_VERSION_TAG, CODE_VERSION_TAG = "dagster/data_version", "dagster/code_version"
INPUT_VERSION_TAG, INPUT_POINTER_TAG = "dagster/input_data_version", "dagster/input_event_pointer"


def dvc_lock_sensor(
    project: DvcProject,
    stages: Mapping[str, Stage] | None = None,
    *,
    read_checks: ReadChecks | None = None,
    name: str = "dvc_lock",
    interval_seconds: int = 30,
) -> dg.SensorDefinition:
    """A sensor that reports what ran outside Dagster: stages whose outs in `dvc.lock` are not those Dagster knows.

    Each becomes a runless materialization with its code version, data version and those of its inputs, and with the
    checks that travel with the data. Stages of a run in progress are left to that run.
    """
    stages = stages or project.stages()
    keys = {name: asset_key(name) for name in stages}

    @dg.sensor(
        name=name,
        description="Shows what ran outside Dagster, such as `dvc repro` in a shell, as materializations.",
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            locked = project.locked()
        except DvcBusyError as busy:
            return dg.SkipReason(f"{PROJECT_FILE} is being worked on. {busy}")
        busy_keys = _keys_in_progress(context.instance, set(keys.values()))
        events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
        for stage in stages.values():
            entry, key = locked.get(stage.name), keys[stage.name]
            if entry is None or key in busy_keys or _known(context.instance, key) == entry.data_version:
                continue
            events.append(_runless(project, stage, entry, locked))
            declared = stage_meta(stage).checks
            if read_checks and declared:
                events += [_evaluation(key, result) for result in read_checks(project, stage, declared)]
        return dg.SensorResult(asset_events=events) if events else dg.SkipReason("Dagster knows all of dvc.lock.")

    return sensor


def _keys_in_progress(instance: dg.DagsterInstance, every: set[dg.AssetKey]) -> set[dg.AssetKey]:
    """Assets that a run in progress is about to report itself."""
    keys: set[dg.AssetKey] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS)):
        keys |= set(run.asset_selection) if run.asset_selection else every
    return keys


_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def _known(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The data version that Dagster last saw."""
    event = instance.get_latest_materialization_event(key)
    return None if event is None else (event.tags or {}).get(DATA_VERSION_TAG)


def _runless(
    project: DvcProject, stage: Stage, entry: LockedStage, locked: Mapping[str, LockedStage]
) -> dg.AssetMaterialization:
    tags = {DATA_VERSION_TAG: entry.data_version, CODE_VERSION_TAG: entry.code_version}
    read = {dep.path: dep.digest for dep in entry.deps}
    for name in stage.upstream:
        if (up := locked.get(name)) is None:
            continue
        # What was read of an upstream's out is compared where it is recorded under the same path.
        same = all(read.get(out.path, out.digest) == out.digest for out in up.outs)
        tags[f"{INPUT_VERSION_TAG}/{asset_key(name).to_user_string()}"] = up.data_version if same else "older"
        tags[f"{INPUT_POINTER_TAG}/{asset_key(name).to_user_string()}"] = "NULL"
    return dg.AssetMaterialization(
        asset_key(stage.name),
        metadata=run_metadata(
            stage, StageRun("ran outside Dagster", ("dvc.lock changed",), entry, recall(project, stage.name, entry))
        ),
        tags=tags,
    )


def _evaluation(key: dg.AssetKey, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=result.check_name or "",
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=True,
    )
