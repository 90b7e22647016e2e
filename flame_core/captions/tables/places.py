"""Where tables of captions are."""

from __future__ import annotations

import os
from pathlib import Path

from flame_core.layout import Layout


def table_place(layout: Layout, path: str) -> Path:
    """A table that params name: one in `data/`, however that is written, is of this run."""
    place = Path(os.path.normpath(layout.resolve(path)))
    own = layout.project / layout.data.name
    return layout.data / place.relative_to(own) if place.is_relative_to(own) else place


def is_of_the_run(layout: Layout, place: Path) -> bool:
    """Whether a table is in `data/`, whose files stages make."""
    return layout.data in place.parents
