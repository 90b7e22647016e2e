"""Tables of captions below `data/`: stages of the project's own make them, so they are of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flame_core.graph.own_stages import own_outs
from flame_core.layout import Layout
from flame_core.params import Params, TableCaptioner


def table_place(layout: Layout, path: str) -> Path:
    """A table that params name: one in `data/`, however that is written, is of this run."""
    place = Path(os.path.normpath(layout.resolve(path)))
    own = layout.project / layout.data.name
    return layout.data / place.relative_to(own) if place.is_relative_to(own) else place


def is_of_the_run(layout: Layout, place: Path) -> bool:
    """Whether a table is in `data/`."""
    return layout.data in place.parents


def unmade_tables(layout: Layout, params: Params, stages: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, what is wrong) of tables in `data/` that none of the project's own stages makes."""
    outs = [os.path.normpath(layout.root / out) for out in own_outs(stages)]
    for kind in ("short", "long"):
        chosen = getattr(params.caption, kind)
        for _, path in chosen.tables if isinstance(chosen, TableCaptioner) else ():
            place = table_place(layout, path)
            if is_of_the_run(layout, place) and not any(place.is_relative_to(out) for out in outs):
                said = f"no stage of dvc.yaml makes {path}, and a run elsewhere has nothing else in data/: move it out"
                yield ("caption", kind, "path"), said
