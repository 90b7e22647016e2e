"""`flame concepts`: the stage, and commands that work with what it counted."""

from __future__ import annotations

from collections.abc import Callable

import typer


def add_to(app: typer.Typer, run_stage: Callable[[str], None], panel: str) -> None:
    """Add the commands to the command line; `run_stage` runs a stage by its name."""
    group = typer.Typer(invoke_without_command=True)

    @group.callback()
    def concepts(context: typer.Context) -> None:
        """Count concepts in captions and pictures; needs a section `concepts` in the params."""
        if context.invoked_subcommand is None:
            run_stage("concepts")

    app.add_typer(group, name="concepts", rich_help_panel=panel)
