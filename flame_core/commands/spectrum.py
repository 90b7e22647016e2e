"""`flame spectrum`: how many directions stored features fill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Results")(spectrum)


def spectrum(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="The folder of a sidecar of vectors, or a .npy file of features [N, D] (default: data/embeddings)."
        ),
    ] = None,
) -> None:
    """Show the spectrum (SVDE, LSVR, effective rank) of stored features, uncentred and column-centred."""
    from flame_core.layout import Layout
    from flame_core.measuring.spectra import NUMBERS, both
    from flame_core.measuring.stored_features import gram_of
    from flame_core.reporting import table

    path = path or Layout.find().embeddings
    rows = []
    for name, sums in gram_of(path).items():
        for centring, each in both(sums).items():
            numbers = each.numbers()
            shown = [f"{numbers[number]:.3f}" for number in NUMBERS]
            rows.append([name, centring, f"{each.n:,}", f"{each.d:,}", *shown, f"{each.largest_svde:.3f}"])
    columns = ["features", "centring", "rows", "dims", *(name.upper() for name in NUMBERS), "SVDE at most"]
    table(f"spectra of {path} (rows of length 1)", columns, rows)
