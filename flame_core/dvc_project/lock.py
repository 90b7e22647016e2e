"""Reads `dvc.lock`, which records each stage's last run, and sorts its entries.

A plain `dvc` rewrites it in place, so it is read under DVC's lock, and an incomplete read is repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core.dvc_project.recorded import LOCK
from flame_core.dvc_project.repo import opened, untorn
from flame_core.dvc_project.whole_files import replace_whole


@dataclass(frozen=True)
class LockedPath:
    """A dep or an out in `dvc.lock`."""

    path: str
    digest: str
    size: int | None
    files: int | None


@dataclass(frozen=True)
class LockedStage:
    """The record of a stage's last run in `dvc.lock`."""

    code_version: str
    data_version: str
    deps: tuple[LockedPath, ...]
    outs: tuple[LockedPath, ...]


def read_lock(root: Path) -> dict[str, LockedStage]:
    """The records in `dvc.lock` of the project in `root`, by stage; empty before the first run.

    Raises:
        DvcBusyError: DVC's lock was not available within its timeout (3 s).
    """
    return untorn(lambda: _read(root))


def _read(root: Path) -> dict[str, LockedStage]:
    from dvc.dvcfile import Lockfile

    path = root / LOCK
    if not path.exists():
        return {}
    with opened(root, locked=True) as repo:
        content = Lockfile(repo, str(path)).load().get("stages") or {}
    made = {row["path"] for entry in content.values() for row in entry.get("outs") or ()}
    return {name: _locked_stage(entry, made) for name, entry in content.items()}


def sort_lock(root: Path) -> None:
    """Put the stages of `dvc.lock` into the order in which a plain `dvc repro` runs and records them.

    DVC appends a stage when it first runs, so without sorting, the file would depend on the order in which independent
    stages happened to end.

    Raises:
        DvcBusyError: DVC's lock was not available within its timeout (3 s).
    """
    from dvc.repo.reproduce import get_active_graph, plan_repro
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    path = root / LOCK
    with opened(root, locked=True) as repo:
        content: Any = parse_yaml_for_update(path.read_text("utf-8"), str(path))
        stages: Any = content.get("stages") or {}
        planned = [getattr(stage, "name", None) for stage in plan_repro(get_active_graph(repo.index.graph))]
        order = [name for name in planned if name in stages]
        order += [name for name in stages if name not in set(order)]
        if order == list(stages):
            return
        for name in order:
            stages.move_to_end(name)
        replace_whole(path, dumps_yaml(content))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_version(command: str | Sequence[str], params: Mapping[str, Mapping[str, Any]]) -> str:
    """A digest that is equal for `dvc.yaml` and `dvc.lock` if a rerun would use the same command and params."""
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


def _locked_stage(entry: Mapping[str, Any], made: Set[str]) -> LockedStage:
    deps, outs = (tuple(_locked_path(row) for row in entry.get(key) or ()) for key in ("deps", "outs"))
    params = {file: values for file, values in (entry.get("params") or {}).items() if file not in made}
    return LockedStage(
        code_version=code_version(entry["cmd"], params),
        data_version=_digest(sorted((out.path, out.digest) for out in outs)),
        deps=deps,
        outs=outs,
    )


def _locked_path(row: Mapping[str, Any]) -> LockedPath:
    algorithm = row.get("hash", "md5")
    digest = next((row[key] for key in (algorithm, "md5", "etag", "checksum", "version_id") if key in row), "")
    return LockedPath(row["path"], str(digest), row.get("size"), row.get("nfiles"))
