"""The params of a stage must stay as they are until it has ended.

DVC reads them again when a stage has ended, and writes those into `dvc.lock`. If somebody edited `params.yaml` or
changed the branch meanwhile, it would say that the out follows from params that the stage has not read, and nothing
would run again. So the command of a stage fails then. What it has computed is in the work cache.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import read_yaml

PARAMS = "params.yaml"  # of entries that name no file, as in DVC

Listed = dict[tuple[str, str], Any]
"""{(file, key): value} of params; the key is empty if the whole file counts."""


def listed_params(layout: Layout, stage: str) -> Listed:
    """The params that `dvc.yaml` lists for a stage, as they are now; None for one that is not there."""
    pipeline = layout.root / "dvc.yaml"
    stages = read_yaml(pipeline).get("stages") if pipeline.is_file() else None
    name, _, recipe = stage.partition("@")
    block = stages.get(name) if isinstance(stages, dict) else None
    names: list[tuple[str, str]] = []
    for entry in (block.get("params") or []) if isinstance(block, dict) else []:
        for file, keys in (entry if isinstance(entry, dict) else {PARAMS: [entry]}).items():
            names += [(str(file).replace("${item.recipe}", recipe), str(key)) for key in keys or [""]]
    return _values(layout, names)


def require_steady(layout: Layout, stage: str, before: Listed) -> None:
    """Refuse params of a stage that have changed since it began.

    Raises:
        ParamsError: names them.
    """
    now = _values(layout, list(before))
    if changed := [f"{file} ({key})" if key else file for file, key in before if now[file, key] != before[file, key]]:
        raise ParamsError(
            f"{', '.join(changed)} changed while {stage} ran, and dvc.lock would say that it had read the new values. "
            "What it computed is kept: `flame run` goes on with the values as they are now, and if you take the change "
            "back, it finds the result in the work cache"
        )


def _values(layout: Layout, names: list[tuple[str, str]]) -> Listed:
    contents = {file: read_yaml(path) for file, _ in names if (path := layout.root / file).is_file()}
    return {(file, key): _at(contents.get(file), key) for file, key in names}


def _at(content: Any, key: str) -> Any:
    parts = key.split(".") if key else []
    return reduce(lambda value, part: value.get(part) if isinstance(value, dict) else None, parts, content)
