"""What `dvc.lock` records: the stages as they last ran, and their outs by digest; read without DVC and its locks.

DVC rewrites the file in place, so an incomplete read is tried again. `lock.py` reads it under DVC's lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

LOCK = "dvc.lock"
_TRIES = 20  # to read a lock that is being rewritten
_ABSENT = object()
log = logging.getLogger(__name__)


def recorded_stages(root: Path) -> dict[str, Any]:
    """The stages of `dvc.lock`; {} if there is none (a stage was run without DVC)."""
    for _ in range(_TRIES):
        try:
            content = yaml.safe_load((root / LOCK).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            content = None
        if isinstance(content, dict) and isinstance(content.get("stages"), dict):
            return content["stages"]
        time.sleep(0.1)
    log.warning("%s is damaged or cannot be read; what it records is left out. `dvc repro` says where", root / LOCK)
    return {}


def out_digests(root: Path) -> dict[str, str]:
    """{path of an out: DVC's digest} of every stage in `dvc.lock`, without damaged entries."""
    stages = [stage for stage in recorded_stages(root).values() if isinstance(stage, dict)]
    outs = [out for stage in stages for out in stage.get("outs") or [] if isinstance(out, dict)]
    pairs = [(out.get("path"), out.get("md5")) for out in outs]
    return {path: digest for path, digest in pairs if isinstance(path, str) and isinstance(digest, str)}


def shared_lock(project: Path, root: Path, stages: Collection[str]) -> bytes | None:
    """A `dvc.lock` for a new workspace: the project's stages whose command and params are the same there.

    DVC brings their outs back from its cache. Without that a workspace of a clone, whose outs were pulled and not
    computed, would compute everything: DVC's own list of earlier runs is of the machine that made them. What a stage
    reads from others is left to DVC, which compares it.

    Args:
        project: the project's folder.
        root: that of the workspace, which has its params already.
        stages: of the workspace's `dvc.yaml`.

    Returns:
        The content of the file; None if no stage is shared.
    """
    try:
        shared = {
            name: entry
            for name, entry in recorded_stages(project).items()
            if name.partition("@")[0] in stages
            and all(_same(_params(root / file), values) for file, values in (entry.get("params") or {}).items())
        }
    except (TypeError, AttributeError):  # an entry is damaged, which `dvc` says
        return None
    return yaml.safe_dump({"schema": "2.0", "stages": shared}, sort_keys=False).encode() if shared else None


def _params(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None


def _same(content: Any, recorded: Mapping[str, Any]) -> bool:
    """Whether the keys of a params file have the values that were recorded."""
    for key, value in recorded.items():
        found = content
        for part in key.split("."):
            found = found.get(part, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        if found != value:
            return False
    return True
