"""What steps need from this machine and source tree: whether and how to run stages, and the tags of a run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import dagster as dg

from flame_core.dvc_project.project import DvcProject
from flame_core.dvc_project.stage_processes import COMMAND, NO_WAIT
from flame_core.errors import FlameError
from flame_core.layout import Layout
from flame_core.outside.noted import changed_inputs
from flame_core.params import load_params
from flame_core.pipeline import runnable_params
from flame_core.settings import settings
from flame_core.workspace import environment
from orchestration.dagster_dvc.run import Runner

GIT_TAG, PARAMS_TAG, WORKSPACE_TAG = "git_commit", "params_digest", "workspace"


def runner() -> Runner:
    """How stages are run here; a setting limits how long a stage may take to stop."""
    return Runner(environment(), _inputs_changed, (*COMMAND, NO_WAIT), settings().stop_grace_seconds)


def _inputs_changed(root: Path, stage: str) -> str:
    """What a stage reads from this machine and has not seen as it is, if there is anything."""
    layout = Layout.find(root)
    try:
        names = changed_inputs(load_params(layout), layout, stage).get(stage, [])
    except FlameError:  # which the stage itself says
        return ""
    return f"reads {', '.join(names)} as it is now" if names else ""


def require_runnable(project: DvcProject) -> None:
    """Refuse a run that `flame run` would refuse before its first stage.

    Raises:
        dagster.Failure: says what to change.
    """
    try:
        runnable_params(Layout.find(project.root))
    except FlameError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def read_tags(project: DvcProject) -> dict[str, str]:
    """Git commit (with `-dirty` if the tree has changes), params digest, and the workspace if there is one.

    Params that cannot be read have no digest; why, the stage itself says.
    """
    layout = Layout.find(project.root)
    tags: dict[str, str] = {}
    with suppress(FlameError):
        tags[PARAMS_TAG] = load_params(layout).digest
    if commit := git_commit(layout.project):
        tags[GIT_TAG] = commit
    if layout.is_workspace:
        tags[WORKSPACE_TAG] = layout.root.name
    return tags


def git_commit(project: Path) -> str | None:
    """The commit of a source tree, with `-dirty` if its tracked files have changes, or None outside git."""
    from flame_core.tracking.provenance import git_state

    state = git_state(project)
    if not state:
        return None
    return state["git.commit"][:12] + ("" if state["git.clean"] == "true" else "-dirty")
