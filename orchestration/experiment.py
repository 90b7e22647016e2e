"""The job `experiment`: the pipeline with changed params, in a workspace, separate from the main line.

Preset and overrides are given in the job's Launchpad:

    ops:
      workspace:
        config:
          preset: flickr8k               # a file of presets/, or nothing
          overrides: {train.epochs: 5}   # as `flame run --set train.epochs=5`

They are validated before any stage starts. The run then works in `.flame/runs/<params digest>/`; unchanged stages come
from DVC's cache. Its results are materializations of `workspaces/<digest>/<asset>`, tagged with the workspace, so they
do not affect the main line's assets, data versions or freshness.

The Launchpad is a web page, so overrides that fetch models or run code (`flame_core/code_params.py`) are refused unless
`FLAME_CODE_OVERRIDES` allows them.
"""
# No postponed annotations here: Dagster inspects the annotations of an op's context and config.

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from flame_core.code_params import changed_code
from flame_core.errors import FlameError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.workspace import find_preset, open_workspace, preset_folders, resolve_params
from orchestration.checks import read_checks
from orchestration.dvc_assets import DATA_VERSION_TAG, asset_key, op_name, run_metadata, run_stage
from orchestration.dvc_project import DvcProject, Stage
from orchestration.dvc_run import Runner
from orchestration.resources import WORKSPACE_TAG, read_tags
from orchestration.stage_meta import stage_meta

WORKSPACE = "workspace"
_DIGEST = re.compile(r"[0-9a-f]{12}")


class Workspace(dg.Config):
    """Changed params for a run."""

    preset: str | None = Field(default=None, description="a file of presets/, with or without .yaml; or a path")
    # `| None`: otherwise Dagster itself would refuse `llm.sha256: null`
    overrides: dict[str, Any | None] = Field(default_factory=dict, description="params to change: {train.epochs: 5}")


def experiment_job(
    layout: Layout, stages: Mapping[str, Stage], runner: Runner, *, code_overrides: bool
) -> dg.JobDefinition:
    """The pipeline of `stages` as a job of plain ops, after an op that opens the workspace.

    Args:
        layout: the project's.
        stages: the stages of its `dvc.yaml`.
        runner: environment and time limits of the stages.
        code_overrides: whether overrides may fetch models or run code.
    """
    ops = {name: _stage_op(layout, stage, runner) for name, stage in stages.items()}
    after = {
        ops[name].name: {
            "after": dg.MultiDependencyDefinition(
                [dg.DependencyDefinition(ops[up].name, "done") for up in stage.upstream]
                or [dg.DependencyDefinition(WORKSPACE, "done")]
            )
        }
        for name, stage in stages.items()
    }
    graph = dg.GraphDefinition(
        "experiment",
        node_defs=[_workspace_op(layout, stages, code_overrides), *ops.values()],
        dependencies=after,
        description="The pipeline with a preset or overrides, in its own workspace: the main line does not change.",
    )
    return graph.to_job(config={"ops": {WORKSPACE: {"config": {"overrides": {}}}}})  # the Launchpad's initial content


def _workspace_op(layout: Layout, stages: Mapping[str, Stage], code_overrides: bool) -> dg.OpDefinition:
    @dg.op(name=WORKSPACE, out={"done": dg.Out(dg.Nothing)}, description="Validate the params and open the workspace.")
    def workspace(context: dg.OpExecutionContext, config: Workspace) -> None:
        try:
            if not config.preset and not config.overrides:
                raise ParamsError("give a preset or overrides; without them, materialize the assets instead")
            overrides = [f"{key}={json.dumps(value)}" for key, value in config.overrides.items()]
            preset = find_preset(layout, config.preset) if config.preset else None
            resolved = resolve_params(layout, overrides, preset)
            if not code_overrides:
                _require_known_code(layout, resolved.params, preset)
            opened = open_workspace(layout, resolved)
        except FlameError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        project = DvcProject(opened.root)
        here = project.stages()
        if unknown := sorted(here.keys() - stages.keys()):
            raise dg.Failure(
                f"these params have stages that dvc.yaml with params.yaml does not have: {', '.join(unknown)}. List "
                "their recipes in params.yaml and reload the definitions, or use `flame run`.",
                allow_retries=False,
            )
        if moved := [f"{name} after {up}" for name, up in _new_edges(stages, here)]:
            raise dg.Failure(
                f"these params have another order than dvc.yaml with params.yaml: {', '.join(moved)}. Use `flame run`.",
                allow_retries=False,
            )
        context.instance.add_run_tags(context.run_id, {**read_tags(project), "overrides": json.dumps(config.overrides)})
        context.log.info(f"workspace {opened.root.relative_to(layout.project)}")

    return workspace


def _new_edges(before: Mapping[str, Stage], now: Mapping[str, Stage]) -> list[tuple[str, str]]:
    """(stage, upstream) of `now` that the order of `before` does not keep; both are in topological order."""
    above: dict[str, set[str]] = {}
    for name, stage in before.items():
        above[name] = {*stage.upstream, *(further for up in stage.upstream for further in above.get(up, ()))}
    return [(name, up) for name, stage in now.items() for up in stage.upstream if up not in above[name]]


def _require_known_code(layout: Layout, params: Params, preset: Path | None) -> None:
    """Refuse models and code that are named neither in `params.yaml` nor in a file of presets/."""
    folders = [folder.resolve() for folder in preset_folders(layout)]
    own = preset is not None and any(map(preset.resolve().is_relative_to, folders))
    base = resolve_params(layout, [], preset if own else None).params
    if keys := changed_code(params, base):
        raise ParamsError(
            f"{', '.join(keys)}: a run from the web interface must not set params that fetch models or run code; use "
            "`flame run --set`, put it into params.yaml or a file of presets/, or set FLAME_CODE_OVERRIDES=true"
        )


def _stage_op(layout: Layout, stage: Stage, runner: Runner) -> dg.OpDefinition:
    meta = stage_meta(stage)

    @dg.op(
        name=f"{WORKSPACE}_{op_name(stage.name)}",  # the assets' own steps have the plain names
        ins={"after": dg.In(dg.Nothing)},
        out={"done": dg.Out(dg.Nothing)},
        description=stage.description,
        pool=meta.pool,
        tags={f"dagster/kind/{kind}": "" for kind in ("dvc", *meta.kinds)},
    )
    def run(context: dg.OpExecutionContext) -> None:
        current = context.instance.get_run_by_id(context.run_id)
        digest = current.tags.get(WORKSPACE_TAG, "") if current else ""
        if not _DIGEST.fullmatch(digest):  # the tag may come from the Launchpad, and becomes a path
            raise dg.Failure(f"no workspace is open: also select the op {WORKSPACE!r}", allow_retries=False)
        project = DvcProject(layout.state / "runs" / digest)
        here = project.stages().get(stage.name)
        if here is None:
            context.log.info(f"{stage.name} is not part of workspace {digest}")
            return
        tags = read_tags(project)
        done = run_stage(context, project, here, runner, tags)
        results = read_checks(project, here, meta.checks)
        checks = {f"check: {result.check_name}": "passed" if result.passed else "failed" for result in results}
        context.log_event(
            dg.AssetMaterialization(
                dg.AssetKey(["workspaces", digest, *asset_key(stage.name).path]),
                description=stage.description,
                metadata={**run_metadata(here, done), **checks},
                tags={**tags, DATA_VERSION_TAG: done.locked.data_version},
            )
        )
        if failed := [r for r in results if not r.passed and r.severity is dg.AssetCheckSeverity.ERROR]:
            said = "; ".join(f"{result.check_name}: {result.description}" for result in failed)
            raise dg.Failure(f"{stage.name} failed checks: {said}", allow_retries=False)

    return run
