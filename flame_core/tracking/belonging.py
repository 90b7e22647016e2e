"""Whether a version of the registered model is this project's.

Several projects may send to one MLflow server, and without settings all of them share one registered model. A version
is another project's if no training here made it and its run read none of this project's sources, whose names are what
the clones of a project have in common: those of its params, and those that its params and presets named in the commit
of the training. What is not known, such as of a run without params, counts as this project's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from flame_core.errors import FlameError, InputError
from flame_core.git import git
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.tracking.journal import MODEL_TAG, Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_SOURCES = "sources"  # of params; the names of sources hold no dots


def require_own(client: MlflowClient, layout: Layout, version: ModelVersion, role: str) -> None:
    """Refuse a version that is another project's; `role` is what it is, such as `champion`.

    Raises:
        InputError: names its sources, and says what to do.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(str(version.run_id))
    except MlflowException:  # it is gone
        return
    if others := foreign_sources(layout, run):
        raise InputError(
            f"version {version.version} of {version.name} ({role}) is of another project: it was trained on "
            f"{', '.join(others)}. Projects on one server need names of their own: set FLAME_REGISTERED_MODEL in "
            ".env, then `flame evaluate` each recipe. If the version is this project's after all, move the alias "
            "`champion` in MLflow"
        )


def foreign_sources(layout: Layout, run: Run) -> list[str]:
    """The names of the sources of another project's run; [] if it may be this project's."""
    own = {*_sources(layout), *_sources(Layout.find(layout.project))}  # a workspace's and the main line's
    read = {key.split(".")[1] for key in run.data.params if key.startswith(f"{_SOURCES}.")}
    if not own or not own.isdisjoint(read):
        return []
    if not _sources_of(layout.project, run.data.tags.get("git.commit", "")).isdisjoint(read):
        return []
    sha256 = run.data.tags.get(MODEL_TAG)
    made_here = sha256 is not None and Journal.of_model(layout.state / "tracking", sha256) is not None
    return [] if made_here else sorted(read)


def _sources(layout: Layout) -> list[str]:
    try:
        return list(load_params(layout).sources)
    except FlameError:  # which the commands that need them say
        return []


def _sources_of(project: Path, commit: str) -> set[str]:
    """The sources that the params and presets of a commit name; none if the project's repository lacks it."""
    if not re.fullmatch("[0-9a-f]+", commit):
        return set()
    found = set[str]()
    listed = git(project, "ls-tree", "-z", "--name-only", commit, "params.yaml", "presets/") or ""
    for file in filter(None, listed.split("\0")):
        try:
            content = yaml.safe_load(git(project, "show", f"{commit}:./{file}") or "")
            found.update(content[_SOURCES])
        except (yaml.YAMLError, KeyError, TypeError):  # no params
            continue
    return found
