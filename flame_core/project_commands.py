"""Commands about a project as a whole: `flame status`, `flame diff`, `flame ui`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

RESULTS = "Results"
Run = Annotated[
    str,
    typer.Argument(
        help="models:/flame@champion, runs:/<id> or its id, the folder of a model or project, or a workspace's digest"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (status, diff, ui):
        app.command(rich_help_panel=RESULTS)(command)


def status(
    tflops: Annotated[
        float | None, typer.Option(min=1e-6, help="Sustained rate of one device, in TFLOP/s: shows hours.")
    ] = None,
) -> None:
    """Show which stages are up to date, and which would run and why; exit code 1 if any would."""
    from flame_core.reporting import starting

    starting("flame status: DVC looks at what has changed")

    from flame_core.layout import Layout
    from flame_core.pipeline_status import UP_TO_DATE, pipeline_status
    from flame_core.reporting import table

    layout = Layout.find()
    found = pipeline_status(layout, tflops)
    rows = [(each.stage, each.state, "; ".join(each.reasons), each.cost) for each in found]
    table(f"stages of {layout.root}", ["stage", "state", "why", "cost at most"], rows)
    sys.exit(0 if all(each.state == UP_TO_DATE for each in found) else 1)


def ui() -> None:
    """Open Dagster and MLflow on this machine; Ctrl-C ends both, and all runs."""
    from flame_core.reporting import starting

    starting("flame ui: starts Dagster and MLflow; this takes half a minute")

    from flame_core.layout import Layout
    from orchestration.ui import show

    show(Layout.find())


def diff(
    first: Run,
    second: Run,
    everything: Annotated[bool, typer.Option("--all", help="All metrics, not only the headline metrics.")] = False,
) -> None:
    """Show the params and metrics in which two runs, models or workspaces differ; exit code 1 if any do."""
    from flame_core.reporting import starting

    starting(f"flame diff: reads {first} and {second}")

    from flame_core.layout import Layout
    from flame_core.reporting import table
    from flame_core.tracking.difference import difference
    from flame_core.tracking.recorded_run import recorded_models

    layout = Layout.find()
    found = difference(recorded_models(layout, first), recorded_models(layout, second), everything)
    if found.params:
        table("params that differ", ["param", "first", "second"], found.params)
    if found.metrics:
        table("metrics that differ", ["metric", "first", "second", "difference", "interval"], found.metrics)
    if found.others:
        typer.echo(f"{found.others} other metrics differ; --all shows them")
    for note in found.notes:
        typer.echo(note)
    same = not (found.params or found.metrics or found.others)
    if same:
        typer.echo("no difference")
    sys.exit(0 if same else 1)
