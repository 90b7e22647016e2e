"""`flame stage-in`: shards, captions, embeddings and other outs from a bucket into `data/`; docs/scale.md."""

from __future__ import annotations

from typing import Annotated

import typer

from flame_core.commands.project import PROJECT
from flame_core.quantities import size_text


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=PROJECT)(stage_in)


def stage_in(
    address: Annotated[str, typer.Argument(help="Of a copy of `data`, such as s3://bucket/flame/data.")],
    outs: Annotated[
        list[str] | None, typer.Argument(help="Folders in it (default: shards, captions and embeddings/train).")
    ] = None,
) -> None:
    """Fetch what a training reads from a bucket, compared with the sha256 of every file."""
    from flame_core.reporting import facts, starting

    starting("flame stage-in")
    from flame_core.data.buckets.outs import OF_A_TRAINING, fetch_outs
    from flame_core.layout import Layout

    found = fetch_outs(address, outs or OF_A_TRAINING, Layout.find())
    facts("stage-in", {f"data/{each.name}": f"{each.files:,} files, {size_text(each.size)}" for each in found})
