"""What a run's params name outside of its outs: sources, an LLM's folder, benchmarks, lists.

Relative paths in params resolve against the project. A reproduction has a folder of its own, so it gets links to them
there. They are found in the values themselves, since the params may be of another version of the code: whatever names
something in the project is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.layout import STATE, Layout
from flame_core.names import shown

_BENCHMARKS = "datasets"  # where benchmarks are, if params do not say it
_LONGEST = 200  # bytes of a path; more is a text, and no file has so long a name
_OWN = {"data", "recipes", "code", STATE, ".dvc", ".git"}  # that a reproduction has itself


def link_sources(layout: Layout, root: Path, content: dict[str, Any]) -> None:
    """Link the relative paths of sources into `root`.

    Raises:
        InputError: one lies so far outside of the project that its link would lie in it.
    """
    for source in content.get("sources", {}).values():
        path = source.get("path")
        if path and not Path(path).is_absolute():
            _link(layout, root, path, layout.project / path)


def link_named(layout: Layout, root: Path, code: Path, content: Any) -> None:
    """Link into `root` all else that params name and the project has; files of the run's commit come from `code`.

    Raises:
        InputError: as `link_sources`.
    """
    for path in sorted({_BENCHMARKS, *_paths(content)}):
        inside = os.path.normpath(path)
        outside = inside.split("/")[0] == ".."
        if inside.split("/")[0] in _OWN or root.is_relative_to(_place(root, path)):
            continue
        if not outside and (root / inside).exists():
            continue
        if not outside and (code / inside).is_file():
            _link(layout, root, path, code / inside)
        elif (layout.project / inside).exists():
            _link(layout, root, path, layout.project / inside)


def _paths(content: Any) -> Iterator[str]:
    """What may be a relative path in params: a text, or its part behind `path:`, before or behind `@`."""
    match content:
        case dict():
            for each in content.values():
                yield from _paths(each)
        case list():
            for each in content:
                yield from _paths(each)
        case str() if content.isprintable():
            first, _, last = content.partition("@")
            for each in (content, content.partition(":")[2], first, last):
                if each.strip() and len(os.fsencode(each)) <= _LONGEST and not each.startswith(("/", "~")):
                    yield each
        case _:
            pass


def _place(root: Path, path: str) -> Path:
    return Path(os.path.normpath(root / path))


def _link(layout: Layout, root: Path, path: str, target: Path) -> None:
    link = _place(root, path)
    if not link.is_relative_to(layout.state) or (link.exists() and not link.is_symlink()):
        raise InputError(f"the run read {shown(path)}, far outside its project; that cannot be reproduced here")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)  # of an earlier reproduction, which may have left one outside of its folder
    link.symlink_to(target.resolve())
