"""The stages of a `dvc.yaml` as Dagster assets, for any DVC project.

    project = DvcProject(Path("path/to/project"))
    defs = dg.Definitions(assets=dvc_assets(project))

One asset per stage: `train@flame` is the asset `train.flame`, because the graph shows only the last part of a key with
slashes, and a key cannot contain `@`. `dvc.yaml` stays the only DAG: names, commands,
descriptions (`desc:`), deps and outs come from it, with templating and `matrix:` resolved, and the rest from `meta:`
(`stage_meta.py`).

The code version of an asset is a digest of its command and resolved params; its data version is a digest of the paths
and hashes of its outs in `dvc.lock`. So an asset is "unsynced" in Dagster if DVC sees a change. The sensor in
`lock_sensor.py` reports runs outside Dagster. `run.py` explains how a stage is run, stopped and refused.

This package, `dvc_project/` and `processes/` need only dagster, dvc, pydantic and psutil.
"""
# No postponed annotations here: Dagster inspects the annotation of a step's context.

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from flame_core.dvc_project.errors import PROJECT_FILE, DvcProjectError
from flame_core.dvc_project.project import DvcProject, Stage
from orchestration.dagster_dvc.never_ran import withdraw_plans
from orchestration.dagster_dvc.run import Context, Runner, StageFailed, StageRun, bring_up_to_date
from orchestration.dagster_dvc.stage_meta import stage_meta

DATA_VERSION_TAG = "dagster/data_version"
EXIT_CODE = "exit code"  # in a failed step's metadata
REFRESH_TAG = "refresh"  # a run's tag: names of stages, separated by commas, to run with `--force`
# Dagster's page says of each that it blocks; whether it does is known with its result.
_ABOUT_CHECKS = "What depends on the asset does not run after a failure that is an error; a warning stops nothing."
ReadChecks = Callable[[DvcProject, Stage, Sequence[str]], Iterable[dg.AssetCheckResult]]
ReadNumbers = Callable[[DvcProject, Stage], Mapping[str, float]]
ReadTags = Callable[[DvcProject], Mapping[str, str]]
Require = Callable[[DvcProject], None]


def asset_key(stage: str) -> dg.AssetKey:
    """`train@flame` as `train.flame`."""
    return dg.AssetKey([stage.replace("@", ".", 1)])


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
    read_numbers: ReadNumbers | None = None,
    require: Require | None = None,
) -> list[dg.AssetsDefinition]:
    """One asset per stage of the project's root `dvc.yaml`.

    Args:
        project: The project whose stages are read and run.
        stages: `project.stages()`, if already read.
        runner: Environment and time limits of the stages.
        read_checks: Called after a stage is up to date, with the names that its meta declares; returns one result per
            name. A failed result of severity ERROR stops downstream assets.
        read_tags: Returns tags for materializations, such as the git commit; called in each step. The run has those
            that its first stage found.
        read_numbers: Called after a stage is up to date; returns numbers that Dagster plots over time.
        require: Called before the first stage of a run; raises dagster.Failure if a later one could only fail.

    Raises:
        DvcProjectError: `dvc.yaml`, a params file or a stage's meta is broken; names the file, line and key.
    """
    stages = stages or project.stages()
    names: dict[object, str] = {}
    for name in stages:
        if (other := names.setdefault(op_name(name), name)) != name or (
            other := names.setdefault(asset_key(name), name)
        ) != name:
            raise DvcProjectError(
                f"{PROJECT_FILE}: stages {other} and {name} differ only in characters that Dagster does not allow"
            )
    if read_checks is None and (stage := next((s for s in stages.values() if stage_meta(s).checks), None)):
        raise DvcProjectError(f"{PROJECT_FILE}: stage {stage.name} declares checks, but dvc_assets got no read_checks")
    readers = (read_checks, read_tags, read_numbers, require)
    return [_asset(project, stage, runner or Runner(), *readers) for stage in stages.values()]


def _asset(
    project: DvcProject,
    stage: Stage,
    runner: Runner,
    read_checks: ReadChecks | None,
    read_tags: ReadTags | None,
    read_numbers: ReadNumbers | None,
    require: Require | None,
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
        freshness_policy=meta.freshness and meta.freshness.policy(),
        metadata={"dvc/stage": stage.name, "dvc/deps": list(stage.deps), "dvc/outs": list(stage.outs)},
    )

    @dg.multi_asset(
        name=op_name(stage.name),
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=_ABOUT_CHECKS, blocking=True) for name in meta.checks
        ],
        pool=meta.pool,  # no retry_policy: Dagster would also retry a stage that a person stopped
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        try:
            if require and _is_first(context):
                require(project)
            tags = dict(read_tags(project)) if read_tags else {}
            run = run_stage(context, project, stage, runner, tags)
            results = list(read_checks(project, stage, meta.checks)) if read_checks and meta.checks else []
        except dg.Failure:
            withdraw_plans(context, key, own_checks=True)
            raise
        except dg.RetryRequested as retry:
            if context.retry_number >= retry.max_retries:
                withdraw_plans(context, key, own_checks=True)
            raise
        if any(not result.passed and result.severity is dg.AssetCheckSeverity.ERROR for result in results):
            withdraw_plans(context, key, own_checks=False)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(run.locked.data_version),
            metadata=run_metadata(stage, run, read_numbers(project, stage) if read_numbers else {}),
            tags=tags,
            check_results=results,
        )

    return materialize


def run_stage(context: Context, project: DvcProject, stage: Stage, runner: Runner, tags: Mapping[str, str]) -> StageRun:
    """Bring a stage up to date in a step of any kind; a failure shows the stage's own last lines.

    Raises:
        dagster.Failure: the stage failed or the project cannot be used.
        dagster.RetryRequested: the stage failed, and its `retries` allow another try.
    """
    if tags and _is_first(context):  # what a later stage finds, its materialization says
        context.instance.add_run_tags(context.run.run_id, dict(tags))
    force = stage.name in context.run.tags.get(REFRESH_TAG, "").split(",")
    try:
        return bring_up_to_date(context, project, stage.name, runner, force)
    except DvcProjectError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except StageFailed as failed:
        failure = dg.Failure(
            str(failed),
            metadata={"command": stage.command, EXIT_CODE: failed.code, **failed.reported},
            allow_retries=False,
        )
        retries = stage_meta(stage).retries
        if retries is None or not retries.may_help(failed.code):
            raise failure from None
        raise dg.RetryRequested(retries.max, retries.delay(context.retry_number + 1)) from failure


def _is_first(context: Context) -> bool:
    """Whether no stage of this run is done yet."""
    return not context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)


def run_metadata(stage: Stage, run: StageRun, numbers: Mapping[str, float]) -> dict[str, Any]:
    """The metadata of a materialization: numbers, facts about the run, and what the stage itself reported."""
    outs = [
        dg.TableRecord({"path": out.path, "digest": out.digest, "bytes": out.size or 0, "files": out.files or 1})
        for out in run.locked.outs
    ]
    return {
        **numbers,
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
