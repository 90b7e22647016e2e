"""Errors of a DVC project: DVC's errors about its files, as `file:line: what is wrong`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

PROJECT_FILE = "dvc.yaml"


class DvcProjectError(Exception):
    """A `dvc.yaml`, a params file or a stage's `meta:` that cannot be used; names the file, the line and the key."""


class DvcBusyError(Exception):
    """Another process holds DVC's lock or a path that is needed; names the process."""


def located(error: Exception, root: Path) -> str:
    """`dvc.yaml:12: message`, if the place is in DVC's error or can be found."""
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
    """`dvc.yaml:12` of the deepest of nested `keys` that the file has."""
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
