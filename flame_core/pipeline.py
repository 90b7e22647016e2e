"""`flame run`: DVC's pipeline in the project or, with changed params, in a workspace (`workspace.py`).

Recipes and benchmarks that could only fail later are refused before the first stage (`training/recipe_check.py`,
`preflight/benchmarks.py`), in Dagster's runs too: whatever starts stages asks `runnable_params` first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flame_core.errors import InputError, ParamsError
from flame_core.failed_checks import show_failed_checks
from flame_core.graph.links import PIPELINE, links, require_links, require_stages, stages_of
from flame_core.graph.own_stages import own_outs
from flame_core.graph.section_stages import section_stages
from flame_core.graph.versions import require_versions
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.workspace import (
    ResolvedParams,
    open_workspace,
    require_dvc,
    resolve_params,
    runs_in_workspace,
    workspace_of,
)

log = logging.getLogger(__name__)


def run_pipeline(layout: Layout, targets: Sequence[str], overrides: Sequence[str], preset: str | Path | None) -> int:
    """Bring `targets` (all stages by default) up to date with `dvc repro`.

    Returns:
        0, or the exit code of the stage that failed, or DVC's own if DVC refused.

    Raises:
        ParamsError: the project is of another version of this package or has no `.dvc/`; a merge left a conflict in
            `dvc.lock`; `dvc.yaml` lacks what a recipe needs, and says what to write; a recipe cannot be trained; a
            benchmark cannot be asked; or a target is no stage.
        InputError: what would be computed only has to be pulled.
        Interrupted: a stop signal came.
    """
    from flame_core.repro.run import reproduce

    resolved = runnable_params(layout, overrides, preset)
    in_workspace = runs_in_workspace(resolved.params, overrides, preset)
    if in_workspace:
        layout = open_workspace(layout, resolved)
        log.info("workspace %s", layout.root.relative_to(layout.project))
    require_stages(layout, targets)
    _require_pulled(layout, targets)
    start = time.time() if targets else 0.0
    code = _look_again(layout, resolved.params, targets) or reproduce(layout.root, targets)
    outs = [layout.root / out for stage in section_stages(layout, resolved.params).values() for out in stage["outs"]]
    outs += [layout.root / out for out in own_outs(stages_of(layout.root / PIPELINE))]
    advised = code == 0  # the stage that failed has told more
    show_failed_checks(layout, resolved.params.recipes, start, optional=outs, advised=advised)
    if in_workspace and code == 0:
        where = layout.root.relative_to(layout.project)
        log.info("results: %s/data; `cd %s` before `flame query`, `flame serve` and the like", where, where)
    return code


def runnable_params(
    layout: Layout,
    overrides: Sequence[str] = (),
    preset: str | Path | None = None,
    *,
    allow: Callable[[Params], None] = lambda params: None,
) -> ResolvedParams:
    """The params of a run, unless one of its stages could only fail later.

    Args:
        layout: the project's.
        overrides: as `train.epochs=5`.
        preset: name or path of a params file.
        allow: refuses params before anything that they name is imported.

    Raises:
        ParamsError: as `run_pipeline`, and what `allow` raises.
    """
    from flame_core.dvc_project.errors import DvcProjectError
    from flame_core.dvc_project.repo import require_merged

    require_versions(layout)
    try:
        require_merged(layout.project)  # DVC names the line, and not what to do; a workspace would begin with nothing
    except DvcProjectError as error:
        raise ParamsError(str(error)) from None
    resolved = resolve_params(layout, overrides, preset)
    allow(resolved.params)
    in_workspace = runs_in_workspace(resolved.params, overrides, preset)
    if not in_workspace:
        require_links(layout, resolved.params)
    of_run = workspace_of(layout, resolved.params) if in_workspace else layout
    _require_trainable(of_run, resolved.params, layout.recipes)
    _require_benchmarks(resolved.params, of_run)
    require_dvc(layout)
    return resolved


def _require_pulled(layout: Layout, targets: Sequence[str]) -> None:
    """Refuse to compute what a remote has; a project that DVC cannot read, or that is busy, is left to DVC.

    Raises:
        InputError: says what to pull.
    """
    from flame_core.dvc_project.absent import NotPulledError, require_pulled
    from flame_core.dvc_project.errors import DvcBusyError, DvcProjectError

    with suppress(DvcProjectError, DvcBusyError):
        try:
            require_pulled(layout.root, targets, layout.project, log.warning)
        except NotPulledError as error:
            raise InputError(str(error)) from None


def _look_again(layout: Layout, params: Params, targets: Sequence[str]) -> int:
    """Run stages that do not find on this machine what they have seen, if `targets` need them.

    What such a stage reads from other stages is brought up to date before.

    Returns:
        0, or the exit code of the stage that failed.

    Raises:
        ParamsError: `dvc.yaml` is broken.
    """
    from flame_core.dvc_project.errors import DvcProjectError
    from flame_core.dvc_project.project import DvcProject
    from flame_core.outside.noted import changed_inputs, note_first
    from flame_core.repro.run import reproduce

    changed = changed_inputs(params, layout)
    note_first(params, layout, changed)
    if not changed:
        return 0
    try:
        upstream = {name: stage.upstream for name, stage in DvcProject(layout.root).stages().items()}
    except DvcProjectError as error:
        raise ParamsError(str(error)) from None
    for stage, before in upstream.items():  # each after those that it reads from
        if stage not in changed or not _is_needed(upstream, stage, targets):
            continue
        if before and (code := reproduce(layout.root, before)):
            return code
        log.info("%s looks again at %s", stage, ", ".join(changed[stage]))
        if code := reproduce(layout.root, ["--force", "--single-item", stage]):
            return code
    return 0


def _is_needed(stages: Mapping[str, Sequence[str]], stage: str, targets: Sequence[str]) -> bool:
    """Whether targets, or all stages if none is named, read what a stage makes; a path counts as if it did."""
    if not targets:
        return True
    wanted = [name for name in stages if name in targets or name.partition("@")[0] in targets]
    found = set(wanted)
    while wanted:
        new = set(stages[wanted.pop()]) - found
        found |= new
        wanted += new
    known = {each for name in stages for each in (name, name.partition("@")[0])}
    return stage in found or not known.issuperset(targets)


def _require_trainable(layout: Layout, params: Params, recipes: Path) -> None:
    """Refuse recipes that could only fail later; imports torch only if a recipe has more than plain params."""
    if any(recipe.terms or links(layout, recipe) for recipe in params.train.values()):
        from flame_core.training.recipe_check import require_linked_recipes

        require_linked_recipes(params, layout, recipes)


def _require_benchmarks(params: Params, layout: Layout) -> None:
    """Refuse benchmarks that could only fail later; imports their definitions only if there are any."""
    if params.evaluate.benchmarks.names or params.evaluate.benchmarks.only_baselines:
        from flame_core.preflight.benchmarks import require_benchmarks

        require_benchmarks(params, layout)
