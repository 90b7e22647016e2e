"""Commands about a project as a whole: making it, bringing it up to date, its state, its interfaces, its pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

PROJECT = "Project"
Run = Annotated[
    str,
    typer.Argument(
        help="models:/flame@champion, runs:/<id> or its id, the folder of a model or project, or a workspace's digest"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (init, upgrade, docs, status, diff, ui):
        app.command(rich_help_panel=PROJECT)(command)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for the project.")],
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of pictures with captions beside them or in a table; or the table."),
    ] = None,
    shards: Annotated[Path | None, typer.Option(help="A folder of webdataset shards (.tar).")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The demo's data: Debian's Tux Paint stamps.")] = False,
    table: Annotated[Path | None, typer.Option(help="The table of captions, if it is not found.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Its column of file names, if it is not clear.")] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Its column of captions, or the field of .json in shards, if it is not clear.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of captions that do not say theirs: en, de.")] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="What the model should suit (default: a GPU if there is one).")
    ] = None,
) -> None:
    """Make a project for your pictures: looks at them, chooses params that fit, and says what it found."""
    from flame_core.reporting import starting

    starting(f"flame init: makes a project in {folder}")

    from flame_core.project.asking import ask
    from flame_core.project.initialise import initialise

    wanted = ask(folder, images, shards, demo, table, image_column, caption_column, language, device)
    initialise(wanted)


def upgrade(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only show; exit code 1 if anything would change.")] = False,
) -> None:
    """Bring dvc.yaml, recipes and versions to the installed version, and keep your edits."""
    from flame_core.layout import Layout
    from flame_core.project.upgrade import plan_upgrade, said

    planned = plan_upgrade(Layout.find().project)
    for line in said(planned):
        typer.echo(line)
    if check or not planned.needed:
        sys.exit(1 if planned.needed else 0)
    if not yes:
        if not sys.stdin.isatty():
            typer.echo("nothing was changed; `flame upgrade --yes` does it")
            sys.exit(1)
        if not typer.confirm("Make these changes?"):
            sys.exit(1)
    planned.apply()
    typer.echo("done; `flame status` shows what runs again")


def docs(page: Annotated[str | None, typer.Argument(help="A page; without one, all are listed.")] = None) -> None:
    """Show a page of the documentation, as of the installed version."""
    from rich.console import Console
    from rich.markdown import Markdown

    from flame_core.errors import ParamsError
    from flame_core.names import did_you_mean
    from flame_core.shipped import shipped

    folder = shipped("docs")
    found = [*sorted(folder.glob("*.md")), *sorted(folder.glob("decisions/*.md"))]
    pages = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    if page is None:
        for name, path in pages.items():
            typer.echo(f"{name:<34} {path.read_text('utf-8').partition(chr(10))[0].removeprefix('# ')}")
        return
    if page not in pages:
        raise ParamsError(f"there is no page {page!r};{did_you_mean(page, pages)} the pages are {', '.join(pages)}")
    console, text = Console(), pages[page].read_text("utf-8")
    if console.is_terminal:
        with console.pager(styles=True):
            console.print(Markdown(text, hyperlinks=False))
    else:
        typer.echo(text)


def status(
    tflops: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Sustained rate of one device, in TFLOP/s: shows how long stages take."),
    ] = None,
) -> None:
    """Show which stages are up to date, and which would run and why; exit code 1 if any would."""
    from flame_core.reporting import starting

    starting("flame status: DVC looks at what has changed")

    from flame_core.layout import Layout
    from flame_core.planning.status import UP_TO_DATE, pipeline_status
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

    from flame_core.errors import ParamsError
    from flame_core.layout import Layout
    from orchestration.ui.servers import show

    layout = Layout.find()
    for needed in (layout.params, layout.root / "dvc.yaml"):
        if not needed.is_file():
            raise ParamsError(f"{needed} is not there: go to a project, or make one with `flame init`")
    show(layout)


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
    for name in found.alone:
        typer.echo(f"recipe {name} is only in one of them")
    same = not (found.params or found.metrics or found.others or found.alone)
    if same:
        typer.echo("no difference")
    sys.exit(0 if same else 1)
