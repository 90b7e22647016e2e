"""What a plan says of trainings, with and without what they read."""

from __future__ import annotations

from pathlib import Path

from flame_core.data.shards import read_index
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.planning.plan import plan
from flame_core.planning.start import given


def planned(params: Params, layout: Layout) -> dict[str, dict[str, str]]:
    """{title: section} of all trainings, for the pictures that are there."""
    start = given(params, layout, len(read_index(layout.shards, "train")), {})
    sections = plan(params, layout, start, tflops=1.0, processes=1)
    return {title: section for title, section in sections.items() if title.startswith("training: ")}


def planned_without(params: Params, layout: Layout, folder: Path) -> dict[str, dict[str, str]]:
    """As `planned`, while a folder is away."""
    away = folder.with_name(f".{folder.name}")
    folder.rename(away)
    try:
        return planned(params, layout)
    finally:
        away.rename(folder)
