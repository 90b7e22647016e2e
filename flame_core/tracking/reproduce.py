"""Trains a model again from the commit, params and lock of its last evaluation, in a separate project.

    flame reproduce models:/flame@champion         # inputs by digest, training and evaluation computed again
    flame reproduce models:/flame/3 --all          # everything from the sources on

`.flame/reproduce/<run id>/` holds that commit's `dvc.yaml` and recipes, the run's `params.yaml` and `dvc.lock`, and its
own work cache, so nothing comes from the results that it should confirm. Inputs come from DVC's cache or remote; if
those have lost them, they are computed again. A reproduction that was stopped or killed keeps its work cache, and the
same command goes on with it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_core.digest import file_sha256
from flame_core.dvc_project.recorded import LOCK
from flame_core.errors import ComputationError, InputError, ParamsError
from flame_core.files.whole_folders import alone
from flame_core.git import git
from flame_core.graph.added_deps import added_deps
from flame_core.graph.links import LINK_STAGE, PIPELINE, linked_files, linked_pipeline, links
from flame_core.graph.own_stages import link_inputs
from flame_core.graph.versions import VERSIONS
from flame_core.layout import OPT_OUT, Layout
from flame_core.measuring.results import METRICS
from flame_core.model_files import WEIGHTS
from flame_core.names import is_commit, require_name, shown
from flame_core.params import parse_params, read_yaml
from flame_core.settings import settings
from flame_core.tracking.belonging import foreign_sources
from flame_core.tracking.dvc_settings import copy_dvc_settings
from flame_core.tracking.evaluation import REPORT
from flame_core.tracking.named_places import link_named, link_sources
from flame_core.tracking.provenance import git_state, recorded_commit, recorded_state
from flame_core.tracking.registry import FORGOTTEN_TAG, MODEL_TAG
from flame_core.tracking.runs import Record, find_record, read_artifact
from flame_core.tracking.store import asking
from flame_core.version import code_version
from flame_core.workspace import dvc, environment

ENV = ".env"
_BEGUN, _WORK = ".flame/begun", ".flame/work"  # in its folder: a file until it has ended, and its work cache
OLDER_VERSIONS = "flame_core/versions.yaml"  # in `dvc.yaml` of commits before projects had their own
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reproduction:
    """The result: digests of the weights, and the metrics that differ as {name: (recorded, now)}."""

    folder: Path
    recorded_sha256: str
    sha256: str
    differing: dict[str, tuple[float | None, float | None]]

    @property
    def same_bytes(self) -> bool:
        return self.recorded_sha256 == self.sha256


def reproduce(layout: Layout, model: str, everything: bool = False) -> Reproduction:
    """Train and evaluate a recorded model again, and compare.

    Raises:
        InputError: MLflow knows no such model, or this repository lacks its commit.
        ComputationError: a stage failed.
        ResourceError: tracking is off, or MLflow does not answer.
    """
    record = find_record(layout, model)
    try:
        recipe = require_name(record.tags["flame.recipe"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{model}: its tag flame.recipe names no recipe ({error})") from None
    if saw := record.tags.get(FORGOTTEN_TAG) or (record.version and record.version.tags.get(FORGOTTEN_TAG)):
        raise InputError(
            f"{model} saw {saw} samples that were forgotten since (`flame forget`): it cannot be trained again"
        )
    root = layout.state / "reproduce" / record.run.info.run_id
    with alone(root, "reproduces the same model"):
        return _reproduce(layout, record, recipe, root, everything)


def _reproduce(layout: Layout, record: Record, recipe: str, root: Path, everything: bool) -> Reproduction:
    with asking(record.address), record.files() as files:
        for name in (LOCK, "params.yaml"):
            read_artifact(files, name)
        recorded = read_artifact(files, f"{REPORT}/{METRICS}")
        _require_commit(layout, record)
        _project(layout, root, files)  # which replaces that of an earlier reproduction, or continues it
        code = _code(layout, record, root)
    variables = _variables(code)
    target = f"evaluate@{recipe}"
    if everything:
        _dvc(root, variables, "repro", "--no-run-cache", "--force", target)
    else:
        for command in ("pull", "checkout"):  # `repro` computes what neither has
            _dvc(root, variables, command, "--force", "--allow-missing", required=False)
        _dvc(root, variables, "repro", "--no-run-cache", "embed")
        if f"{LINK_STAGE}{recipe}" in read_yaml(root / PIPELINE)["stages"]:
            _dvc(root, variables, "repro", "--no-run-cache", f"{LINK_STAGE}{recipe}")
        for stage in (f"train@{recipe}", target):
            _dvc(root, variables, "repro", "--no-run-cache", "--force", "--single-item", stage)
    found = Layout.find(root)
    metrics = json.loads((found.report(recipe) / METRICS).read_text("utf-8"))
    differing = {
        name: (recorded.get(name), metrics.get(name))
        for name in sorted(recorded.keys() | metrics.keys())
        if recorded.get(name) != metrics.get(name)
    }
    sha256 = file_sha256(found.model(recipe) / WEIGHTS)
    (root / _BEGUN).unlink()
    return Reproduction(root, record.tags.get(MODEL_TAG, ""), sha256, differing)


def _variables(code: Path) -> dict[str, str]:
    """The environment of the stages: the code of `code` first, then what the caller's path has, if that has none."""
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    return {**environment(), "PYTHONPATH": path, "FLAME_TRACKING_URI": "off", "PYTHONSAFEPATH": "1"}


def _project(layout: Layout, root: Path, files: Path) -> None:
    """Make a new project in `root` with the run's params and lock, and this project's cache.

    It has the work cache of an earlier reproduction if that did not end.
    """
    from flame_core.dvc_project.stage_processes import end_abandoned

    end_abandoned(root, settings().stop_grace_seconds, log.warning)
    _clear(root, [root / _BEGUN, root / _WORK] if (root / _BEGUN).is_file() else [])
    (root / _BEGUN).parent.mkdir(parents=True, exist_ok=True)
    (root / _BEGUN).touch()
    copy_dvc_settings(layout, root)
    for name in ("params.yaml", LOCK):
        shutil.copy(files / name, root / name)
    if layout.opt_out.is_file():
        shutil.copy(layout.opt_out, root / OPT_OUT)
    if (env := layout.project / ENV).is_file():
        (root / ENV).symlink_to(env.resolve())  # settings, such as the device
    link_sources(layout, root, read_yaml(root / "params.yaml"))


def _clear(folder: Path, kept: Sequence[Path]) -> None:
    """Remove a folder, but not what is kept in it."""
    if not any(each.is_relative_to(folder) for each in kept):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for each in set(folder.iterdir()).difference(kept):
        if each.is_dir() and not each.is_symlink():
            _clear(each, kept)
        else:
            each.unlink()


def _require_commit(layout: Layout, record: Record) -> None:
    """Refuse a run whose commit, if it recorded one, is not here, and another project's that recorded none.

    Raises:
        InputError: says what brings it.
    """
    recorded = recorded_commit(record.tags)
    if recorded is None:
        if others := foreign_sources(layout, record.run):
            run_id = record.run.info.run_id
            raise InputError(f"run {run_id} is another project's, trained on {', '.join(others)}: ask from there")
        return
    name, commit = recorded
    if not is_commit(commit):
        raise InputError(f"the run's tag {name} is {shown(commit)}, which is not a commit")
    if git(layout.project, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise InputError(
            f"commit {commit} of the run is not in this repository, or there is no git here: fetch the branch that "
            "holds it (`git fetch --unshallow` in a shallow clone), or ask from the repository of the run"
        )


def _code(layout: Layout, record: Record, root: Path) -> Path:
    """The source tree of the run's commit (this one, or a copy); also copies its definitions into `root`."""
    state = recorded_state(record.tags)
    commit, here = state.get("git.commit"), git_state(layout.project)
    code = layout.project
    if commit and here != {"git.commit": commit, "git.clean": "true"}:
        code = root / "code"
        code.mkdir(exist_ok=True)
        archive = root / "code.tar"
        if git(layout.project, "archive", f"--output={archive.resolve()}", commit, timeout=None) is None:
            raise ComputationError(f"`git archive {commit}` failed in {layout.project}")
        with tarfile.open(archive) as opened:
            opened.extractall(code, filter="data")
        archive.unlink()
    if not commit:
        log.warning("the run recorded no commit; this tree's code is used")
    elif state.get("git.clean") == "false":
        log.warning("the run's tree had changes that commit %s does not hold", commit[:12])
    computed_by = record.tags.get("flame.code")
    if not (code / "flame_core").is_dir() and computed_by not in (None, code_version()):
        log.warning("the run was computed by flame-mlops %s, and %s is installed", computed_by, code_version())
    for name in (PIPELINE, ".dvcignore", VERSIONS, OLDER_VERSIONS):
        if (code / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(code / name, root / name)
    _recipes(layout, code, root)
    link_named(layout, root, code, read_yaml(root / "params.yaml"))
    link_inputs(read_yaml(root / PIPELINE)["stages"], root, code, layout.project)
    return code


def _recipes(layout: Layout, code: Path, root: Path) -> None:
    """The recipes, and their links in `dvc.yaml`: the run may have been in a workspace, with others than the commit."""
    here = Layout.find(root)
    try:
        params = parse_params(read_yaml(here.params), here.params, code / "recipes")
    except ParamsError as error:  # written for that commit's code, which may be older
        log.warning("links of recipes are taken as commit and run left them: %s", error)
        shutil.copytree(code / "recipes", here.recipes)
        return
    pipeline = root / PIPELINE
    pipeline.write_bytes(linked_pipeline(pipeline.read_bytes(), here, params))
    for name, content in linked_files(code / "recipes", here, params).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    linked = {path for recipe in params.train.values() for path in links(here, recipe).values()}
    for path in linked | {here.root / dep for deps in added_deps(here, params).values() for dep in deps}:
        if path.is_relative_to(root) and not path.is_relative_to(here.data):  # relative to the project
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to((layout.project / path.relative_to(root)).resolve())


def _dvc(root: Path, variables: dict[str, str], *arguments: str, required: bool = True) -> None:
    from flame_core.repro.run import run_in_order

    log.info("dvc %s", " ".join(arguments))
    code = run_in_order(root, [*dvc(), *arguments], variables, errors=required)
    if required and code:
        raise ComputationError(f"`dvc {' '.join(arguments)}` failed in {root} with exit code {code}")
