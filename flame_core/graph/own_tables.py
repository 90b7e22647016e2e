"""Tables of captions below `data/`: stages of the project's own make them, so they are of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flame_core.captions.tables.places import is_of_the_run, table_place
from flame_core.graph.own_stages import own_places
from flame_core.layout import Layout
from flame_core.params import Params


def is_made(layout: Layout, place: Path, stages: Mapping[str, Any]) -> bool:
    """Whether stages of the project's own make a table, or a folder that it is in."""
    return any(place.is_relative_to(os.path.normpath(layout.root / out)) for out in own_places(stages))


def unmade_tables(layout: Layout, params: Params, stages: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, what is wrong) of tables in `data/` that none of the project's own stages makes."""
    for kind, chosen in params.caption.tables:
        for _, path in chosen.tables:
            place = table_place(layout, path)
            if is_of_the_run(layout, place) and not is_made(layout, place, stages):
                said = f"no stage of dvc.yaml makes {path}: let a stage of your own make it, or move it out of data/"
                yield ("caption", kind, "path"), said
