"""The results of experiments as assets: one per stage, with one partition per experiment.

The job `experiment` (`experiment.py`) makes them; nothing else does, so "Materialize all" leaves them alone. Their
checks can be evaluated again for a partition. The partition's key is the digest of the experiment's params, the name of
its folder in `.flame/runs/`.
"""
# No postponed annotations here: Dagster inspects the annotations of a check's context.

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import dagster as dg

from flame_core.dvc_project.project import DvcProject, Stage
from flame_core.layout import Layout
from orchestration.checks import read_checks
from orchestration.dagster_dvc.assets import DATA_VERSION_TAG, asset_key, op_name, run_metadata
from orchestration.dagster_dvc.check_evaluation import check_evaluation
from orchestration.dagster_dvc.run import StageRun
from orchestration.dagster_dvc.stage_meta import stage_meta
from orchestration.numbers import read_numbers

EXPERIMENTS = "experiments"  # the group, the partitions and the first part of the keys
_DIGEST = re.compile(r"[0-9a-f]{12}")


def experiment_key(stage: str) -> dg.AssetKey:
    """The key of a stage's results in experiments."""
    return asset_key(stage).with_prefix(EXPERIMENTS)


def is_digest(name: str) -> bool:
    """Whether a name can be that of an experiment."""
    return _DIGEST.fullmatch(name) is not None


def experiment_project(layout: Layout, digest: str) -> DvcProject:
    """The workspace of an experiment."""
    return DvcProject(layout.state / "runs" / digest)


def experiment_assets(stages: Mapping[str, Stage]) -> list[dg.AssetSpec]:
    """The results of each stage in every experiment."""
    metas = {name: stage_meta(stage) for name, stage in stages.items()}
    return [
        dg.AssetSpec(
            experiment_key(name),
            deps=[experiment_key(up) for up in stage.upstream],
            description=f"{stage.description or name}\n\nMade by the job `experiment`, one partition per experiment.",
            group_name=EXPERIMENTS,
            kinds={"dvc", *metas[name].kinds},
            owners=list(metas[name].owners),
            partitions_def=dg.DynamicPartitionsDefinition(name=EXPERIMENTS),
        )
        for name, stage in stages.items()
    ]


def experiment_checks(layout: Layout, stages: Mapping[str, Stage]) -> list[dg.AssetChecksDefinition]:
    """The checks of those results, which read what the stage stored with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster's, about checks of partitions
        return [_checks(layout, stage, names) for stage in stages.values() if (names := stage_meta(stage).checks)]


def _checks(layout: Layout, stage: Stage, names: Sequence[str]) -> dg.AssetChecksDefinition:
    key = experiment_key(stage.name)
    partitions = dg.DynamicPartitionsDefinition(name=EXPERIMENTS)

    @dg.multi_asset_check(
        name=f"experiment_{op_name(stage.name)}_checks",
        specs=[dg.AssetCheckSpec(name, asset=key, partitions_def=partitions) for name in names],
        can_subset=True,  # so that a run of everything, which is of no experiment, may leave them all out
    )
    def checks(context: dg.AssetCheckExecutionContext) -> Iterable[dg.AssetCheckResult]:
        if not context.has_partition_key:
            context.log.info("nothing to check: this run is of no experiment")
            return
        if not is_digest(context.partition_key):
            raise dg.Failure("choose an experiment: its checks are those of one partition", allow_retries=False)
        selected = {each.name for each in context.selected_asset_check_keys}
        for result in read_checks(experiment_project(layout, context.partition_key), stage, names):
            if result.check_name in selected:
                yield result._replace(asset_key=key)

    return checks


def experiment_events(
    project: DvcProject,
    stage: Stage,
    run: StageRun,
    results: Iterable[dg.AssetCheckResult],
    tags: Mapping[str, str],
    about: Mapping[str, str],
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """What a stage of an experiment made, and the results of its checks.

    Args:
        project: the experiment's workspace.
        stage: the stage, as it is there.
        run: of the stage.
        results: of its checks.
        tags: of the materialization.
        about: what makes the experiment: its preset and overrides.
    """
    key, partition = experiment_key(stage.name), project.root.name
    yield dg.AssetMaterialization(
        key,
        description=stage.description,
        metadata={**about, **run_metadata(stage, run, read_numbers(project, stage))},
        tags={**tags, DATA_VERSION_TAG: run.locked.data_version},
        partition=partition,
    )
    for result in results:
        yield check_evaluation(key, result, partition)
