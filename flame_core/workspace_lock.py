"""What a new workspace takes over of the project's `dvc.lock`: stages whose command and params are the same.

DVC brings their outs back from its cache. Without that a workspace of a clone, whose outs were pulled and not computed,
would compute everything: DVC's own list of earlier runs is of the machine that made them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

LOCK = "dvc.lock"
_ABSENT = object()


def shared_lock(project: Path, root: Path, stages: Collection[str]) -> bytes | None:
    """A `dvc.lock` for the workspace in `root`, which has its params already; None if it shares no stage.

    What a stage reads from others is left to DVC, which compares it.

    Args:
        project: the project's folder.
        root: that of the workspace.
        stages: of the workspace's `dvc.yaml`.
    """
    content = _content(project / LOCK)
    try:
        shared = {
            name: entry
            for name, entry in content["stages"].items()
            if name.partition("@")[0] in stages
            and all(_same(_content(root / file), values) for file, values in (entry.get("params") or {}).items())
        }
    except (KeyError, TypeError, AttributeError):  # there is none, or it is damaged, which `dvc` says
        return None
    return yaml.safe_dump({**content, "stages": shared}, sort_keys=False).encode() if shared else None


def locked_outs(root: Path) -> list[str]:
    """The outs that a `dvc.lock` records; none if it is damaged."""
    try:
        return [out["path"] for entry in _content(root / LOCK)["stages"].values() for out in entry.get("outs") or []]
    except (KeyError, TypeError, AttributeError):
        return []


def _content(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _same(content: Any, recorded: Mapping[str, Any]) -> bool:
    """Whether the keys of a params file have the values that were recorded."""
    for key, value in recorded.items():
        found = content
        for part in key.split("."):
            found = found.get(part, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        if found != value:
            return False
    return True
