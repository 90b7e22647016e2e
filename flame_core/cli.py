"""The command line: `flame <stage>` for every stage of `dvc.yaml`, and commands that work with the results.

Heavy packages are imported inside the commands, so `flame --help` answers within a second.
"""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

import typer

from flame_core.commands import (
    classify,
    data_card,
    describe,
    export,
    forget,
    probe,
    project,
    search,
    spectrum,
    stage_in,
    stages,
    tracking,
)
from flame_core.program import begin, errors_in_a_sentence

app = typer.Typer(
    name="flame",
    help="Pre-train image encoders against a frozen LLM, from raw image-text pairs to an evaluated model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 2 wrong usage or params, 3 input refused, 4 gate refused, 5 something missing, "
    "6 computation failed, 75 interrupted after a checkpoint (the same command resumes).",
)
params_app = typer.Typer(help="Check params, and say what they mean.", no_args_is_help=True)
app.add_typer(params_app, name="params")
project.add_to(app)
search.add_to(app)
export.add_to(app)
classify.add_to(app)
describe.add_to(app)
spectrum.add_to(app)
probe.add_to(app)
tracking.add_to(app)
forget.add_to(app)
data_card.add_to(app)
stage_in.add_to(app)
stages.add_to(app)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a param: train.epochs=5")
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A complete params file instead of params.yaml: its name in presets/, or its path."
    ),
]


def main() -> None:
    """Entry point: a FlameError ends without a traceback, with its exit code."""
    begin()
    with errors_in_a_sentence():
        app()


def _show_version(asked: bool) -> None:
    if asked:
        from flame_core.version import code_version

        typer.echo(f"flame {code_version()}")
        raise typer.Exit


@app.callback()
def _configure(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and the commit.")
    ] = False,
) -> None:
    from flame_core.reporting import configure_logging
    from flame_core.settings import settings

    configure_logging(settings().log_level)


@app.command(rich_help_panel=project.PROJECT)
def run(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages to bring up to date (default: all).")] = None,
    overrides: Overrides = None,
    preset: Preset = None,
) -> None:
    """Run the pipeline with DVC; changed params run in their own workspace."""
    from flame_core.layout import Layout
    from flame_core.pipeline import run_pipeline
    from flame_core.reporting import starting

    starting("flame run: DVC looks at what has changed")
    sys.exit(run_pipeline(Layout.find(), targets or [], overrides or [], preset))


@app.command(rich_help_panel=project.PROJECT)
def plan(
    overrides: Overrides = None,
    preset: Preset = None,
    images: Annotated[int | None, typer.Option(min=1, help="Training pictures (default: in data/shards).")] = None,
    caption_tokens: Annotated[
        list[str] | None, typer.Option(metavar="KIND=TOKENS", help="Mean length of captions: long=150")
    ] = None,
    tflops: Annotated[float, typer.Option(min=1e-6, help="Sustained rate of one device, in TFLOP/s.")] = 100.0,
    processes: Annotated[int, typer.Option(min=1, help="Processes (GPUs) of a training.")] = 1,
) -> None:
    """Estimate what a run will take before it starts: tokens, FLOPs, time, storage, memory."""
    from flame_core.layout import Layout
    from flame_core.planning.plan import plan as make
    from flame_core.planning.start import given, read_lengths
    from flame_core.reporting import facts
    from flame_core.workspace import resolve_params

    layout = Layout.find()
    params = resolve_params(layout, overrides or [], preset).params
    start = given(params, layout, images, read_lengths(caption_tokens or []))
    for title, values in make(params, layout, start, tflops, processes).items():
        facts(title, values)


@params_app.command("describe")
def params_describe(
    key: Annotated[str, typer.Argument(help="A key such as train.model, or a kind: train.objective.infonce.")] = "",
) -> None:
    """Say what keys of params.yaml and of recipes (train) mean, what they take, and their defaults."""
    from flame_core.params.reference import describe, paragraphs

    for line in paragraphs(describe(key), key, shutil.get_terminal_size((100, 24)).columns):
        typer.echo(line)


@params_app.command("check")
def params_check(
    overrides: Overrides = None,
    preset: Preset = None,
) -> None:
    """Find every mistake in params.yaml and the recipes it names, and warn if they do not fit the data."""
    from rich.markup import escape

    from flame_core.layout import Layout
    from flame_core.params.validation import not_valid
    from flame_core.preflight import check
    from flame_core.reporting import console, facts

    checked = check(Layout.find(), overrides or [], preset)
    params = checked.params
    if params is None:
        raise not_valid(checked.source, checked.faults)
    facts(
        f"{checked.source} is valid",
        {
            "sources": ", ".join(f"{name} ({source.kind})" for name, source in params.sources.items()),
            "LLM": f"{params.llm.source}, layer {params.text.layer}",
            "recipes": ", ".join(params.recipes),
            "params digest": params.digest,
        },
    )
    if checked.chosen:
        facts("Chosen from the data (auto)", checked.chosen)
    for warning in checked.warnings:
        console.print(f"[bold yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)
