"""Workspaces: a run with changed params happens in `.flame/runs/<params digest>/`, so the tracked tree stays clean.

A workspace holds `dvc.yaml` with the links of its own recipes, `recipes/`, the merged `params.yaml` and its own
`dvc.lock`; it shares the DVC cache and the work cache with the project, so stages that do not change cost nothing and
the same digest resumes.

    flame run                                  # the project itself: `dvc repro`
    flame run --set train.epochs=5             # a workspace
    flame run --preset flickr8k                # a workspace with a complete params file, presets/flickr8k.yaml
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from flame_core.dvc_project.recorded import LOCK, out_digests, shared_lock
from flame_core.errors import ParamsError, ResourceError
from flame_core.files.whole_files import put
from flame_core.graph.links import PIPELINE, linked_files, linked_pipeline
from flame_core.graph.own_stages import link_inputs
from flame_core.graph.versions import VERSIONS
from flame_core.layout import OPT_OUT, Layout
from flame_core.names import expanded, shown
from flame_core.params import Params, merge
from flame_core.params.overlay import without_effect
from flame_core.params.places import BY_RECIPE, Places, short
from flame_core.params.validation import not_valid, read_placed
from flame_core.params.whole import examine_params
from flame_core.params.yaml_text import DEEPEST, read_yaml_text
from flame_core.shipped import shipped

TELEMETRY_OFF = {
    "DVC_NO_ANALYTICS": "1",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
LARGE_OUTS = ("data/shards", "data/embeddings")


@dataclass(frozen=True)
class ResolvedParams:
    """Params after preset and overrides, both as YAML content and validated."""

    content: dict[str, Any]
    params: Params


@dataclass(frozen=True)
class WrittenParams:
    """Params after preset and overrides as they were written, not validated.

    Attributes:
        source: the preset or `params.yaml`.
        content: with the overrides applied.
        places: where each value was written.
        faults: keys that are given twice, and overrides that set nothing.
    """

    source: Path
    content: dict[str, Any]
    places: Places
    faults: list[str]


def resolve_params(layout: Layout, overrides: Sequence[str], preset: str | Path | None) -> ResolvedParams:
    """Apply `overrides` (`train.epochs=5`) to the preset or the project's own `params.yaml`, and validate.

    Raises:
        ParamsError: of every mistake the file, line and key, or the override.
    """
    written = written_params(layout, overrides, preset)
    found = examine_params(written.content, layout.recipes, written.places)
    faults = [*written.faults, *found.faults]
    if found.params is None or faults:
        raise not_valid(written.source, faults)
    return ResolvedParams(written.content, found.params)


def written_params(layout: Layout, overrides: Sequence[str], preset: str | Path | None) -> WrittenParams:
    """Read the preset, given by name or path, or the project's own `params.yaml`, and apply `overrides`.

    Raises:
        ParamsError: there is no such preset, or a file or an override is no YAML.
    """
    source = find_preset(layout, str(preset)) if preset else layout.params
    placed = read_placed(source, short(source))
    content, places = placed.value, Places(short(source), placed.lines)
    named = [(f"--set {shown(override)[1:-1]}", nested_override(override)) for override in overrides]
    for name, laid in named:
        content = merge(content, laid)
        places.override(name, laid)
    faults = [
        f"{name}: has no effect, since train.{BY_RECIPE} sets {key} for every listed recipe: set it there"
        for name, laid in named
        for key in without_effect(laid, content)
    ]
    return WrittenParams(source, content, places, [*placed.twice, *faults])


def preset_folders(layout: Layout) -> tuple[Path, Path]:
    """Where presets are: the project's own, and those that this installation ships."""
    return layout.project / "presets", shipped("presets")


def preset_names(layout: Layout) -> list[str]:
    """The names of all presets."""
    return sorted({path.stem for folder in preset_folders(layout) for path in folder.glob("*.yaml")})


def find_preset(layout: Layout, name: str) -> Path:
    """The params file of a preset, given by its name in `presets/`, of the project or shipped, or by a path.

    Raises:
        ParamsError: there is no such file; names the existing presets.
    """
    folders = preset_folders(layout)
    named = [folder / each for folder in folders for each in (f"{name}.yaml", name)]
    for path in (*named, layout.project / name, expanded(name)):
        if path.is_file():
            return path
    known = ", ".join(preset_names(layout)) or "none"
    raise ParamsError(f"preset {shown(name)} does not exist (known presets: {known}), and no file has that path")


def split_override(override: str) -> tuple[str, Any]:
    """`train.epochs=5` as ("train.epochs", 5); the value is YAML.

    Raises:
        ParamsError: names the override, and what is wrong with it.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ParamsError(f"--set {shown(override)}: write key=value, such as train.epochs=5")
    where = f"--set {shown(override)}"
    parts = key.split(".")
    if not all(parts) or len(parts) > DEEPEST:
        raise ParamsError(f"{where}: the key must be at most {DEEPEST} names separated by dots")
    return key, read_yaml_text(text, where)


def nested_override(override: str) -> dict[str, Any]:
    """`a.b=5` as {"a": {"b": 5}}."""
    key, value = split_override(override)
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def runs_in_workspace(params: Params, overrides: Sequence[str], preset: str | Path | None) -> bool:
    """Whether a run with these params has a workspace: they are not the project's own, or nothing is kept twice."""
    return bool(overrides or preset or not params.storage.cache)


def workspace_of(layout: Layout, params: Params) -> Layout:
    """The workspace of these params, which need not exist yet."""
    return Layout.find(layout.state / "runs" / params.digest)


def open_workspace(layout: Layout, resolved: ResolvedParams) -> Layout:
    """Create or refresh the workspace of these params."""
    opened, params = workspace_of(layout, resolved.params), resolved.params
    root = opened.root
    try:
        root.mkdir(parents=True, exist_ok=True)
        contents = linked_files(layout.recipes, opened, params)
        copied = [PIPELINE, ".dvcignore", VERSIONS]
        contents |= {name: (layout.project / name).read_bytes() for name in copied}
    except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise ParamsError(f"{error.filename}: {error.strerror}; a workspace needs it, and `flame upgrade` writes "
                          "files of a project that are missing") from None  # fmt: skip
    contents[PIPELINE] = linked_pipeline(contents[PIPELINE], opened, params)
    contents["params.yaml"] = yaml.safe_dump(resolved.content, sort_keys=False, allow_unicode=True).encode()
    if not params.storage.cache:
        contents[PIPELINE] = _existing_once(contents[PIPELINE])
    cache = os.path.relpath(dvc_cache(layout), root / ".dvc")
    contents[".dvc/config"] = (
        f"[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n[cache]\n    dir = {cache}\n"
    ).encode()
    if layout.opt_out.is_file():
        contents[OPT_OUT] = layout.opt_out.read_bytes()
    for name, content in contents.items():
        put(root / name, content)
    link_inputs(yaml.safe_load(contents[PIPELINE])["stages"], root, layout.project)
    _take_over(layout, root, contents[PIPELINE])
    return opened


def _take_over(layout: Layout, root: Path, pipeline: bytes) -> None:
    """Give a workspace in which nothing has run the outs of the project that its params do not change."""
    if not (root / LOCK).exists():
        shared = shared_lock(layout.project, root, yaml.safe_load(pipeline)["stages"])
        if shared is None:
            return
        put(root / LOCK, shared)
    if not all((root / out).exists() for out in out_digests(root)) and not _at_work(root):
        command = [*dvc(), "checkout", "--quiet", "--allow-missing"]  # without what DVC's cache lacks
        subprocess.run(command, cwd=root, env=environment(), capture_output=True, check=False)


def _at_work(root: Path) -> bool:
    """Whether a stage of this workspace runs; DVC would put its earlier out back while it writes the new one."""
    from flame_core.dvc_project.repo import held_paths, release_dead

    if not (held_paths(root) or {}).get("write"):
        return False
    release_dead(root)
    return bool((held_paths(root) or {}).get("write"))


def _existing_once(pipeline: bytes) -> bytes:
    """A `dvc.yaml` whose large outs stay out of DVC's cache: DVC records their digests and keeps no copy."""
    content = yaml.safe_load(pipeline)
    for stage in content["stages"].values():
        stage["outs"] = [{out: {"cache": False}} if out in LARGE_OUTS else out for out in stage["outs"]]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def require_dvc(layout: Layout) -> None:
    """Refuse a project without DVC's own folder, as after a copy without hidden ones, before DVC does in its words.

    Raises:
        ParamsError: says how to make it; or DVC fails below a folder of that name.
    """
    require_plain_path(layout.project)
    if dvc_folder(layout) is None:
        raise ParamsError(
            f"{layout.project} has no .dvc/, where DVC keeps its settings: copy it too, or make it there with "
            "`dvc init` (`dvc init --no-scm` without git, `dvc init --subdir` in a subfolder of a git repository)"
        )


def require_plain_path(root: Path) -> None:
    """Refuse a project whose path breaks what it is built on.

    DVC formats a text with the path of its cache. MLflow puts that of its artifacts into SQL, quoted as Python would.

    Raises:
        ParamsError: names the path.
    """
    path = str(root.absolute())
    if "{" in path or "}" in path:
        raise ParamsError(f"{path}: DVC does not work where a path has {{ or }}; rename the folder")
    if "'" in path and '"' in path:
        raise ParamsError(f"{path}: MLflow does not work where a path has both ' and \"; rename the folder")


def dvc_folder(layout: Layout) -> Path | None:
    """The `.dvc/` of the project, or of the folder above it that DVC was set up in; None if there is none."""
    above = (layout.project, *layout.project.parents)
    return next((folder / ".dvc" for folder in above if (folder / ".dvc").is_dir()), None)


def dvc_cache(layout: Layout) -> Path:
    """The project's DVC cache, as configured."""
    done = subprocess.run(
        [*dvc(), "cache", "dir"], cwd=layout.project, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ResourceError(f"`dvc cache dir` failed in {layout.project}: {done.stderr.strip()}")
    return layout.project / done.stdout.strip()


def drop_runs(layout: Layout, command: str) -> None:
    """Remove a command whose outs follow from more than DVC knows from DVC's run cache, which restores any run."""
    if dvc_folder(layout) is None or find_spec("dvc") is None:
        return
    for folder in (dvc_cache(layout) / "runs").glob("*/*"):
        for path in folder.glob("*"):
            with suppress(OSError), path.open(encoding="utf-8") as file:
                if file.readline().rstrip() == f"cmd: {command}":
                    path.unlink()
        with suppress(OSError):
            folder.rmdir()  # only if it is empty: DVC fails at a folder without a run


def environment() -> dict[str, str]:
    """The environment of a DVC process: telemetry off, and this interpreter's commands first on the path."""
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, **TELEMETRY_OFF, "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")])}


def dvc() -> list[str]:
    """The command that calls DVC, with this interpreter."""
    return [sys.executable, "-m", "dvc"]
