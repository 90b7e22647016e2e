"""Where a model of another project lies, by its source (`model.py`): on this machine, or elsewhere."""

from __future__ import annotations

from pathlib import Path

from flame_core.layout import Layout


def local_place(source: str, layout: Layout) -> Path | None:
    """The folder or file of this machine that a source names, relative to the project; None if there is none.

    It is the folder of `transformers:<folder>`, or the weights of `open_clip:<architecture>@<file>` and
    `timm:<name>@<file>`.
    """
    kind, _, rest = source.partition(":")
    if kind == "transformers":
        place = layout.resolve(rest)
        return place if place.is_dir() else None
    weights = rest.partition("@")[2]
    place = layout.resolve(weights)
    return place if weights and place.is_file() else None


def in_project(source: str, layout: Layout) -> str:
    """The source with its place as an absolute path, which `open_model` finds in any working directory."""
    if (place := local_place(source, layout)) is None:
        return source
    kind, _, rest = source.partition(":")
    return f"{kind}:{place}" if kind == "transformers" else f"{kind}:{rest.partition('@')[0]}@{place}"
