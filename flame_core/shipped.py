"""Files that this installation ships besides code: the graph and recipes of a project, presets, the lock of packages.

A wheel holds them in `flame_core/shipped/` (`[tool.hatch.build.targets.wheel.force-include]`). In a source tree they
are those of its root, which is itself a project, so each exists once.
"""

from __future__ import annotations

from pathlib import Path

_IN_WHEEL = Path(__file__).parent / "shipped"


def shipped(name: str) -> Path:
    """The place of a shipped file or folder, such as `dvc.yaml`, `recipes` or `presets`."""
    folder = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[1]
    return folder / name
