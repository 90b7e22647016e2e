"""`flame data-card`: the shards described for a hub and for programs, both from the same facts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flame_core.files.whole_files import write_output


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Results")(data_card)


def data_card(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write README.md and croissant.json.")],
    name: Annotated[str | None, typer.Option(help="Of the data set (default: that of the project's folder).")] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="Of the whole, if you may say so; as the hub calls it."),
    ] = None,
) -> None:
    """Write a hub's card and Croissant metadata of data/shards."""
    from flame_core.reporting import facts as show
    from flame_core.reporting import starting

    starting("flame data-card")
    from flame_core.digest import json_bytes
    from flame_core.layout import Layout
    from flame_core.params import load_params
    from flame_core.serving.croissant import croissant
    from flame_core.serving.dataset_card import dataset_card
    from flame_core.serving.dataset_facts import dataset_facts

    layout = Layout.find()
    if out.resolve() in (layout.project.resolve(), layout.shards.resolve()):
        raise typer.BadParameter(f"{out} has files of its own, such as a README.md; name another folder for the card")
    found = dataset_facts(load_params(layout), layout)
    name = name or layout.project.name
    write_output(out / "README.md", dataset_card(name, found, licence), "--out")
    write_output(out / "croissant.json", json_bytes(croissant(name, found, licence)).decode(), "--out")
    show(
        "data-card",
        {
            "samples": sum(found.samples.values()),
            "licence": licence or found.licence or f"several or not known: {dict(found.licences.most_common(5))}",
            "card": out / "README.md",
            "Croissant": out / "croissant.json",
        },
    )
