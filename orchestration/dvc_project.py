"""A DVC project as data: its stages as DVC itself resolves them, what `dvc.lock` records, and what changed since.

Serves any DVC project; it knows nothing of FLAME and nothing of Dagster (`dvc_assets.py` builds on it).

    project = DvcProject(Path("."))
    project.stages()             # {"train@flame": Stage(command=..., upstream=..., code_version=...), ...}
    project.locked()             # {"train@flame": LockedStage(data_version=..., code_version=...), ...}
    project.changes("evaluate")  # {"train": ["params.yaml: lr modified"]}: the stage and its dirty ancestors

Only stages of the root `dvc.yaml` count, with templating and `matrix:` resolved. Their ancestors may stand anywhere
in the project (`.dvc` files, other `dvc.yaml` files). DVC rewrites `dvc.lock` in place, so it is read under DVC's
lock, and a torn read is repeated.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dvc.repo import Repo

PROJECT_FILE, LOCK_FILE = "dvc.yaml", "dvc.lock"
_TORN_READS = 20  # attempts, 50 ms apart
T = TypeVar("T")


class DvcProjectError(Exception):
    """A `dvc.yaml`, a params file or a stage's `meta:` that cannot be used; names the file, the line and the key."""


class DvcBusyError(Exception):
    """Another process holds DVC's lock, or a path that is needed; says who."""


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
    code_version: str  # of the command and the resolved params


@dataclass(frozen=True)
class Entry:
    """A dep or an out as `dvc.lock` records it."""

    path: str
    digest: str
    size: int | None
    files: int | None


@dataclass(frozen=True)
class LockedStage:
    """What `dvc.lock` records of a stage's last run."""

    code_version: str
    data_version: str
    deps: tuple[Entry, ...]
    outs: tuple[Entry, ...]


@dataclass(frozen=True)
class DvcProject:
    """The DVC project whose root is `root`."""

    root: Path

    def stages(self) -> dict[str, Stage]:
        """The stages of the root `dvc.yaml`, in topological order, each after those it reads from.

        Raises:
            DvcProjectError: `dvc.yaml` or a params file is broken; names the file and, where known, the line.
        """
        return _untorn(self._read_stages)

    def _read_stages(self) -> dict[str, Stage]:
        from dvc.repo.index import Index
        from networkx import lexicographical_topological_sort

        with self._errors_named(), self._repo() as repo:
            index = Index.from_file(repo, str(self.root / PROJECT_FILE))
            graph = index.graph
            ordered = lexicographical_topological_sort(graph.reverse(copy=False), key=lambda stage: stage.name)
            return {stage.name: self._stage(stage, graph) for stage in ordered}

    def _stage(self, stage: Any, graph: Any) -> Stage:
        from dvc.dependency import ParamsDependency

        params: dict[str, Any] = {}
        for dep in stage.params:
            found = dep.read_params()
            missing = sorted(set(dep.params or ()) - found.keys())
            if missing or not dep.exists:
                what = f"does not hold {', '.join(missing)}" if dep.exists else "does not exist"
                raise DvcProjectError(f"{dep.def_path} {what}, which stage {stage.name} of {PROJECT_FILE} asks for")
            params[dep.def_path] = found
        command = "\n".join(stage.cmd) if isinstance(stage.cmd, list) else stage.cmd
        return Stage(
            name=stage.name,
            command=command,
            description=stage.desc,
            meta=stage.meta or {},
            upstream=tuple(sorted(up.name for up in graph.successors(stage))),
            deps=tuple(self._relative(dep) for dep in stage.deps if not isinstance(dep, ParamsDependency)),
            outs=tuple(self._relative(out) for out in stage.outs),
            code_version=_code_version(stage.cmd, params),
        )

    def _relative(self, entry: Any) -> str:
        path = Path(entry.fs_path)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(entry)

    def locked(self) -> dict[str, LockedStage]:
        """What `dvc.lock` records, by stage; empty before the first run.

        Raises:
            DvcBusyError: DVC's lock was not to be had within its timeout (3 s).
        """
        return _untorn(self._read_lock)

    def _read_lock(self) -> dict[str, LockedStage]:
        from dvc.dvcfile import Lockfile

        path = self.root / LOCK_FILE
        if not path.exists():
            return {}
        with self._errors_named(), self._repo() as repo, self._holding(repo):
            content = Lockfile(repo, str(path)).load().get("stages") or {}
        return {name: _locked_stage(entry) for name, entry in content.items()}

    def sort_lock(self) -> None:
        """Put the stages of `dvc.lock` into the order in which a plain `dvc repro` runs and records them.

        DVC appends a stage when it first runs, so without this the file would tell in which order stages that do not
        depend on each other happened to end.

        Raises:
            DvcBusyError: DVC's lock was not to be had within its timeout (3 s).
        """
        from dvc.repo.reproduce import get_active_graph, plan_repro
        from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

        path = self.root / LOCK_FILE
        with self._errors_named(), self._repo() as repo, self._holding(repo):
            content: Any = parse_yaml_for_update(path.read_text("utf-8"), str(path))
            stages: Any = content.get("stages") or {}
            planned = [getattr(stage, "name", None) for stage in plan_repro(get_active_graph(repo.index.graph))]
            order = [name for name in planned if name in stages]
            order += [name for name in stages if name not in set(order)]
            if order == list(stages):
                return
            for name in order:
                stages.move_to_end(name)
            beside = path.with_name(f".{LOCK_FILE}.{os.getpid()}")
            beside.write_text(dumps_yaml(content), "utf-8")
            beside.replace(path)

    def changes(self, name: str) -> dict[str, list[str]]:
        """What DVC sees as changed in a stage and its ancestors; whatever is up to date is absent.

        Raises:
            DvcBusyError: another process holds DVC's lock or one of the paths; says who.
        """
        return _untorn(lambda: self._read_changes(name))

    def _read_changes(self, name: str) -> dict[str, list[str]]:
        from networkx import descendants

        with self._errors_named(), self._repo() as repo, self._holding(repo):
            graph = repo.index.graph
            root_file = str(self.root / PROJECT_FILE)
            own = {str(getattr(s, "name", None)): s for s in graph if Path(s.path) == Path(root_file)}
            if name not in own:
                raise DvcProjectError(
                    f"{root_file} has no stage {name!r} with the params of this run; it has: {', '.join(sorted(own))}"
                )
            found: dict[str, list[str]] = {}
            for stage in [own[name], *descendants(graph, own[name])]:
                changed = [change for entry in stage.status(check_updates=True).values() for change in entry]
                if changed:
                    label = getattr(stage, "name", None) or stage.addressing
                    found[label] = [reason for change in changed for reason in _reasons(change)]
            return found

    @contextmanager
    def _repo(self) -> Iterator[Repo]:
        from dvc.repo import Repo

        with Repo(str(self.root)) as repo:
            yield repo

    @contextmanager
    def _holding(self, repo: Repo) -> Iterator[None]:
        """DVC's repository lock, and who has it if it is not to be had."""
        from dvc.lock import LockError

        try:
            repo.lock.lock()
        except LockError as error:
            raise DvcBusyError(self.holder() or _first_lines(str(error))) from None
        try:
            yield
        finally:
            repo.lock.unlock()

    def holder(self) -> str | None:
        """Who holds the repository lock, as far as the lock file tells."""
        import psutil

        try:
            pid = int((self.root / ".dvc" / "tmp" / "lock").read_text().split()[0])
            command = " ".join(psutil.Process(pid).cmdline())
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return f"DVC's lock in {self.root} is held by process {pid} ({command[:200]})"

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """DVC's errors about a project's files, with file and line."""
        from dvc.exceptions import DvcException
        from dvc.lock import LockError

        try:
            yield
        except LockError as error:
            raise DvcBusyError(_first_lines(str(error))) from None
        except DvcException as error:
            if LOCK_FILE in str(getattr(error, "path", "")):
                raise _TornRead(error) from None
            raise DvcProjectError(_located(error, self.root)) from None


class _TornRead(Exception):
    """`dvc.lock` was read while DVC rewrote it."""


def _untorn(read: Callable[[], T]) -> T:
    for _ in range(_TORN_READS):
        try:
            return read()
        except _TornRead:
            time.sleep(0.05)
    try:
        return read()
    except _TornRead as torn:
        raise DvcProjectError(f"{LOCK_FILE} cannot be read: {torn}") from None


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_version(command: str | Sequence[str], params: Mapping[str, Mapping[str, Any]]) -> str:
    """Equal for `dvc.yaml` as it is and for `dvc.lock`, as long as a rerun would use the same command and params."""
    commands = [command] if isinstance(command, str) else list(command)
    return _digest([commands, {file: flatten(values) for file, values in params.items()}])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _locked_stage(entry: Mapping[str, Any]) -> LockedStage:
    deps, outs = (tuple(_entry(row) for row in entry.get(key) or ()) for key in ("deps", "outs"))
    return LockedStage(
        code_version=_code_version(entry["cmd"], entry.get("params") or {}),
        data_version=_digest(sorted((out.path, out.digest) for out in outs)),
        deps=deps,
        outs=outs,
    )


def _entry(row: Mapping[str, Any]) -> Entry:
    algorithm = row.get("hash", "md5")
    digest = next((row[key] for key in (algorithm, "md5", "etag", "checksum", "version_id") if key in row), "")
    return Entry(row["path"], str(digest), row.get("size"), row.get("nfiles"))


def _reasons(change: Any) -> list[str]:
    """One entry of DVC's status as sentences: `params.yaml: train.epochs modified`, `data/raw modified`."""
    if isinstance(change, str):
        return [change]
    reasons = []
    for kind, entries in change.items():
        for path, what in entries.items():
            if isinstance(what, Mapping):  # a params file
                reasons.append(f"{path}: " + ", ".join(f"{key} {how}" for key, how in what.items()))
            else:
                reasons.append(f"{path} {what}" + (" (output)" if kind == "changed outs" else ""))
    return reasons


def _first_lines(text: str) -> str:
    """A lock error without its advice."""
    return text.split("\n\nIf there are no processes")[0]


def _located(error: Exception, root: Path) -> str:
    """`dvc.yaml:12: message` where DVC's error tells, or lets one find, the place."""
    path = Path(str(getattr(error, "path", None) or root / PROJECT_FILE)).resolve()  # DVC's are relative to the cwd
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    cause = error.__cause__
    mark = getattr(cause, "problem_mark", None)
    if mark is not None:  # not YAML
        problem = " ".join(str(part) for part in (cause.context, cause.problem) if part)  # type: ignore[union-attr]
        return f"{name}:{mark.line + 1}: {problem}"
    faults = getattr(getattr(error, "exc", None), "errors", None) or getattr(cause, "errors", None)
    if faults:  # YAML of another shape than DVC's schema
        keys = [str(key) for key in faults[0].path]
        return f"{_place(root, name, keys)}: {'.'.join(keys)}: {faults[0].msg}"
    quoted = str(error).split("'")
    keys = quoted[1].split(".") if str(error).startswith("failed to parse '") else []
    message = str(error).replace(os.path.relpath(root / PROJECT_FILE), PROJECT_FILE)
    return f"{_place(root, name, keys)}: {message}"


def _place(root: Path, name: str, keys: Sequence[str]) -> str:
    """`dvc.yaml:12` of the deepest of nested `keys` that the file holds."""
    from ruamel.yaml import YAML, YAMLError

    try:
        node = YAML().load((root / name).read_text("utf-8"))
    except (OSError, YAMLError):
        return name
    line = None
    for key in keys:
        if not isinstance(node, Mapping) or key.split("@")[0] not in node:
            break
        key = key.split("@")[0]
        line = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
        node = node[key]
    return name if line is None else f"{name}:{line}"
