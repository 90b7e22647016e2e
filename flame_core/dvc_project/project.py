"""A DVC project as data: its stages as DVC resolves them, the records of `dvc.lock`, and what changed since.

`dagster_dvc/` makes Dagster's assets of it.

    project = DvcProject(Path("."))
    project.stages()             # {"train@flame": Stage(command=..., upstream=..., code_version=...), ...}
    project.locked()             # {"train@flame": LockedStage(data_version=..., code_version=...), ...}
    project.changes("evaluate")  # {"train": ["params.yaml: lr 0.1 → 0.2"]}: the stage and its dirty ancestors
    project.all_changes()        # the same, of all stages

Only stages of the root `dvc.yaml` count, with templating and `matrix:` resolved. Their ancestors may be anywhere in the
project (`.dvc` files, other `dvc.yaml` files).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core.dvc_project.errors import PROJECT_FILE, DvcProjectError
from flame_core.dvc_project.lock import LockedStage, code_version, flatten, read_lock
from flame_core.dvc_project.repo import opened, untorn

NEVER_RAN = "has not run here"  # the only reason of a stage that dvc.lock lacks
_ABSENT = "(none)"
_SHOWN_VALUES = 3  # changed values per key of a params file
_VALUE_CHARS = 60


@dataclass(frozen=True)
class Stage:
    """A stage of the root `dvc.yaml`, resolved. Paths are relative to the project's root."""

    name: str
    command: str
    description: str | None
    meta: Mapping[str, Any]
    upstream: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    code_version: str  # of the command and the resolved params, without params files that other stages make


@dataclass(frozen=True)
class DvcProject:
    """The DVC project whose root is `root`."""

    root: Path

    def stages(self) -> dict[str, Stage]:
        """The stages of the root `dvc.yaml`, in topological order: each after those that it reads from.

        Raises:
            DvcProjectError: `dvc.yaml` or a params file is broken; names the file and, if known, the line.
        """
        return untorn(lambda: _read_stages(self.root))

    def locked(self) -> dict[str, LockedStage]:
        """The records of `dvc.lock`, by stage; empty before the first run.

        Raises:
            DvcBusyError: DVC's lock was not available within its timeout (3 s); names the process that has it.
        """
        return read_lock(self.root)

    def changes(self, name: str) -> dict[str, list[str]]:
        """What DVC sees as changed in a stage and its ancestors; stages that are up to date are left out.

        Raises:
            DvcBusyError: another process holds DVC's lock or one of the paths; names the process.
        """
        return untorn(lambda: _read_changes(self.root, name))

    def all_changes(self) -> dict[str, list[str]]:
        """The same for all stages of `dvc.yaml`."""
        return untorn(lambda: _read_all_changes(self.root))


def _read_stages(root: Path) -> dict[str, Stage]:
    from dvc.repo.index import Index
    from networkx import lexicographical_topological_sort

    with opened(root) as repo:
        index = Index.from_file(repo, str(root / PROJECT_FILE))
        graph = index.graph
        ordered = lexicographical_topological_sort(graph.reverse(copy=False), key=lambda stage: stage.name)
        stages = list(ordered)
        made = {out.fs_path for stage in stages for out in stage.outs}
        return {stage.name: _stage(root, stage, graph, made) for stage in stages}


def _stage(root: Path, stage: Any, graph: Any, made: Set[str]) -> Stage:
    """One stage; `made` are the outs of all: a params file among them is data, and may not be there yet."""
    from dvc.dependency import ParamsDependency

    params: dict[str, Any] = {}
    for dep in stage.params:
        if dep.fs_path in made:
            continue
        found = dep.read_params()
        missing = sorted(set(dep.params or ()) - found.keys())
        if missing or not dep.exists:
            what = f"does not have {', '.join(missing)}" if dep.exists else "does not exist"
            raise DvcProjectError(f"{dep.def_path} {what}, which stage {stage.name} of {PROJECT_FILE} needs")
        params[dep.def_path] = found
    command = "\n".join(stage.cmd) if isinstance(stage.cmd, list) else stage.cmd
    return Stage(
        name=stage.name,
        command=command,
        description=stage.desc,
        meta=stage.meta or {},
        upstream=tuple(sorted(up.name for up in graph.successors(stage))),
        deps=tuple(
            _relative(root, dep) for dep in stage.deps if dep.fs_path in made or not isinstance(dep, ParamsDependency)
        ),
        outs=tuple(_relative(root, out) for out in stage.outs),
        code_version=code_version(stage.cmd, params),
    )


def _relative(root: Path, entry: Any) -> str:
    path = Path(entry.fs_path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(entry)


def _read_changes(root: Path, name: str) -> dict[str, list[str]]:
    from networkx import descendants

    with opened(root, locked=True) as repo:
        graph = repo.index.graph
        root_file = root / PROJECT_FILE
        own = {str(getattr(s, "name", None)): s for s in graph if Path(s.path) == root_file}
        if name not in own:
            raise DvcProjectError(
                f"{root_file} has no stage {name!r} with the params of this run; it has: {', '.join(sorted(own))}"
            )
        return _changes_of([own[name], *descendants(graph, own[name])])


def _read_all_changes(root: Path) -> dict[str, list[str]]:
    with opened(root, locked=True) as repo:
        return _changes_of([stage for stage in repo.index.graph if Path(stage.path) == root / PROJECT_FILE])


def _changes_of(stages: Iterable[Any]) -> dict[str, list[str]]:
    """{stage: what DVC sees as changed}, without stages that are up to date."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        changed = [change for entry in stage.status(check_updates=True).values() for change in entry]
        if changed:
            label = getattr(stage, "name", None) or stage.addressing
            modified = {dep.def_path: _modified_values(dep) for dep in stage.params}
            reasons = [reason for change in changed for reason in _reasons(change, modified)]
            found[label] = reasons if _is_recorded(stage) else [NEVER_RAN]
    return found


def _is_recorded(stage: Any) -> bool:
    """Whether `dvc.lock` has the stage; otherwise DVC's status says that its params are new and its outs deleted."""
    entries = [*stage.deps, *stage.outs]
    return not entries or any(entry.hash_info for entry in entries)


def _modified_values(dep: Any) -> dict[str, str]:
    """{key of a params file: `train.epochs 20 → 5`}, for keys whose value differs from the recorded one."""
    if not dep.exists:
        return {}
    old, new = dep.hash_info.value or {}, dep.read_params()
    shown: dict[str, str] = {}
    for key in old.keys() & new.keys():
        before, after = flatten({key: old[key]}), flatten({key: new[key]})
        names = [name for name in {**before, **after} if before.get(name, _ABSENT) != after.get(name, _ABSENT)]
        values = [f"{name} {_value(before, name)} → {_value(after, name)}" for name in names[:_SHOWN_VALUES]]
        if values:
            shown[key] = ", ".join(values) + (f" and {len(names) - len(values)} more" if names[len(values) :] else "")
    return shown


def _value(values: Mapping[str, Any], name: str) -> str:
    text = str(values.get(name, _ABSENT))
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "…"


def _reasons(change: Any, modified: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One entry of DVC's status as text: `params.yaml: train.epochs 20 → 5`, `data/raw modified`.

    `modified` has the values that changed, by params file and key.
    """
    if isinstance(change, str):
        return [change]
    reasons = []
    for kind, entries in change.items():
        for path, what in entries.items():
            if isinstance(what, Mapping):  # a params file
                values = modified.get(path, {})
                reasons.append(f"{path}: " + ", ".join(values.get(key, f"{key} {how}") for key, how in what.items()))
            else:
                reasons.append(f"{path} {what}" + (" (output)" if kind == "changed outs" else ""))
    return reasons
