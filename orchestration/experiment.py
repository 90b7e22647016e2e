"""The job `experiment`: the pipeline with changed params, in a workspace, separate from the main line.

Preset and overrides are given in the job's Launchpad, which proposes the names of presets:

    ops:
      workspace:
        config:
          preset: flickr8k               # a file of presets/, or nothing
          overrides: {train.epochs: 5}   # as `flame run --set train.epochs=5`

They are validated before any stage starts, as by `flame run`. The run then works in `.flame/runs/<params digest>/`;
unchanged stages come from DVC's cache. Its results belong to the assets of `experiment_assets.py`, one partition per
experiment, so they do not affect the main line's assets, data versions or freshness.

The Launchpad is a web page, so overrides that fetch models or run code (`flame_core/params/code_params.py`) are refused
unless `FLAME_CODE_OVERRIDES` allows them.
"""
# No postponed annotations here: Dagster inspects the annotations of an op's context and config.

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, cast

import dagster as dg
from pydantic import Field, create_model

from flame_core.digest import value_digest
from flame_core.dvc_project.absent import NotPulledError, require_pulled
from flame_core.dvc_project.errors import DvcBusyError, DvcProjectError
from flame_core.dvc_project.project import DvcProject, Stage
from flame_core.errors import FlameError, ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.code_params import changed_code
from flame_core.pipeline import runnable_params
from flame_core.workspace import find_preset, open_workspace, preset_folders, preset_names, resolve_params
from orchestration.checks import read_checks
from orchestration.dagster_dvc.assets import op_name, run_stage
from orchestration.dagster_dvc.run import Runner
from orchestration.dagster_dvc.stage_meta import stage_meta
from orchestration.experiment_assets import EXPERIMENTS, experiment_events, experiment_project, is_digest
from orchestration.resources import WORKSPACE_TAG, read_tags

WORKSPACE = "workspace"
PRESET_TAG, OVERRIDES_TAG = "preset", "overrides"


class Workspace(dg.Config):
    """Changed params for a run."""

    preset: Any = None  # `with_presets` says which
    preset_path: str | None = Field(default=None, description="a params file that is not in presets/")
    # `| None`: otherwise Dagster itself would refuse `llm.sha256: null`
    overrides: dict[str, Any | None] = Field(default_factory=dict, description="params to change: {train.epochs: 5}")

    @property
    def chosen(self) -> str | None:
        """Name or path of the preset."""
        return self.preset.name if self.preset else self.preset_path


def with_presets(names: list[str]) -> type[Workspace]:
    """`Workspace` with the names that `preset` may have, which the Launchpad proposes."""
    kind = f"Preset_{value_digest(names)[:6]}"  # Dagster knows an enum by its name
    preset: Any = Enum(kind, {name: name for name in names or ["none"]})
    fields: Any = {"preset": (preset | None, Field(default=None, description="a file of presets/"))}
    return create_model("Workspace", __base__=Workspace, **fields)


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
    def workspace(context: dg.OpExecutionContext, config: Workspace) -> None:
        try:
            if not config.chosen and not config.overrides:
                raise ParamsError("give a preset or overrides; without them, materialize the assets instead")
            overrides = [f"{key}={json.dumps(value)}" for key, value in config.overrides.items()]
            preset = find_preset(layout, config.chosen) if config.chosen else None

            def allow(params: Params) -> None:
                if not code_overrides:
                    _require_known_code(layout, params, preset)

            opened = open_workspace(layout, runnable_params(layout, overrides, preset, allow=allow))
            require_pulled(opened.root, project=layout.project, warn=context.log.warning)
        except (FlameError, NotPulledError, DvcProjectError, DvcBusyError) as error:
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
        given = {PRESET_TAG: config.chosen, OVERRIDES_TAG: json.dumps(config.overrides)}
        tags = {**read_tags(project), **{name: value for name, value in given.items() if value}}
        context.instance.add_run_tags(context.run_id, tags)
        context.instance.add_dynamic_partitions(EXPERIMENTS, [opened.root.name])
        context.log.info(f"workspace {opened.root.relative_to(layout.project)}")

    workspace.__annotations__["config"] = with_presets(preset_names(layout))
    about = "Validate the params and open the workspace."
    return dg.op(name=WORKSPACE, out={"done": dg.Out(dg.Nothing)}, description=about)(workspace)


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
        asked = current.tags if current else {}
        digest = asked.get(WORKSPACE_TAG, "")
        if not is_digest(digest):  # the tag may come from the Launchpad, and becomes a path
            raise dg.Failure(f"no workspace is open: also select the op {WORKSPACE!r}", allow_retries=False)
        project = experiment_project(layout, digest)
        here = project.stages().get(stage.name)
        if here is None:
            context.log.info(f"{stage.name} is not part of workspace {digest}")
            return
        tags = read_tags(project)
        done = run_stage(context, project, here, runner, tags)
        results = read_checks(project, here, meta.checks)
        about = {name: asked[name] for name in (PRESET_TAG, OVERRIDES_TAG) if name in asked}
        for event in experiment_events(project, here, done, results, tags, about):
            context.log_event(cast(Any, event))  # its annotation leaves results of checks out
        if failed := [r for r in results if not r.passed and r.severity is dg.AssetCheckSeverity.ERROR]:
            said = "\n".join(f"{result.check_name}: {result.description}" for result in failed)
            raise dg.Failure(f"{stage.name} failed checks:\n{said}", allow_retries=False)

    return run
