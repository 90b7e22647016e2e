"""The stages of a `dvc.yaml` as Dagster assets, for any DVC project.

    project = DvcProject(Path("path/to/project"))
    defs = dg.Definitions(assets=dvc_assets(project))

One asset a stage: `train@flame` is the asset `train/flame`. `dvc.yaml` stays the only DAG: names, commands,
descriptions (`desc:`), deps and outs are read from it, with templating and `matrix:` resolved, and the rest from
`meta:` (`stage_meta.py`).

The code version of an asset is a digest of its command and its resolved params, the data version one of the paths and
hashes of its outs, as `dvc.lock` has them. So "unsynced" in Dagster is DVC's idea of change. Runs outside Dagster show
up through the sensor of `dvc_lock_sensor.py`. How a stage is run, stopped and refused is told in `dvc_run.py`.

This module, `stage_meta.py`, `process_tree.py`, `shown_process.py` and those whose names begin with `dvc` know nothing
of FLAME. They need only dagster, dvc, pydantic and psutil.
"""
# No postponed annotations here: Dagster reads those of a step's context as they stand.

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from orchestration.dvc_errors import PROJECT_FILE, DvcProjectError
from orchestration.dvc_project import DvcProject, Stage
from orchestration.dvc_run import Context, Runner, StageFailed, StageRun, bring_up_to_date
from orchestration.stage_meta import stage_meta

DATA_VERSION_TAG = "dagster/data_version"
EXIT_CODE = "exit code"  # of a failed step's metadata
REFRESH_TAG = "refresh"  # a run's tag: names of stages, separated by commas, that are run with `--force`
ReadChecks = Callable[[DvcProject, Stage, Sequence[str]], Iterable[dg.AssetCheckResult]]
ReadTags = Callable[[DvcProject], Mapping[str, str]]


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
        freshness_policy=meta.freshness and meta.freshness.policy(),
        metadata={"dvc/stage": stage.name, "dvc/deps": list(stage.deps), "dvc/outs": list(stage.outs)},
    )

    @dg.multi_asset(
        name=op_name(stage.name),
        specs=[spec],
        check_specs=[dg.AssetCheckSpec(name, asset=key, blocking=True) for name in meta.checks],
        pool=meta.pool,  # and no retry_policy: Dagster would also retry what a person stopped
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
        dagster.Failure: what failed.
        dagster.RetryRequested: the same, where the stage's `retries` say that another try may help.
    """
    if tags:
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
