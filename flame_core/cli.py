"""The command line: `flame <stage>` for every stage of `dvc.yaml`, and commands that work with the results.

Heavy packages are imported inside the commands, so `flame --help` answers within a second.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from flame_core.commands import (
    classify,
    concepts,
    data_card,
    describe,
    export,
    forget,
    probe,
    project,
    search,
    spectrum,
    stage_in,
    tracking,
)
from flame_core.commands.recipe_completion import recipe_names
from flame_core.errors import FlameError, ParamsError, ResourceError
from flame_core.standard_streams import open_closed_streams
from flame_core.user_name import name_user
from flame_core.utf8_mode import in_utf8_mode

app = typer.Typer(
    name="flame",
    help="Pre-train image encoders against a frozen LLM, from raw image-text pairs to an evaluated model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 2 wrong usage or params, 3 input refused, 4 gate refused, 5 something missing, "
    "6 computation failed, 75 interrupted after a checkpoint (the same command resumes).",
)
STAGES = "Stages"
params_app = typer.Typer(help="Check params.", no_args_is_help=True)
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

RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try failed samples again; dvc.lock is kept true.")]
Recipe = Annotated[str | None, typer.Argument(help="A recipe that params.yaml lists.", autocompletion=recipe_names)]
NamedRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="The same, in the form that dvc.yaml uses, because DVC quotes it.",
        autocompletion=recipe_names,
    ),
]
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
    in_utf8_mode()
    open_closed_streams()
    name_user()
    try:
        app()
    except FlameError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        from flame_core.files.disk_errors import disk_error, place_error

        if (refused := disk_error(error) or place_error(error)) is None:
            raise
        _fail(str(refused), refused.exit_code)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith(("flame_core", "orchestration")):
            raise
        _fail(
            f"the Python package {error.name!r} is not installed: `pip install 'flame-mlops[pipeline]'` installs all",
            ResourceError.exit_code,
        )


def _fail(message: str, code: int) -> NoReturn:
    from rich.markup import escape

    from flame_core.reporting import console

    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)


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


def _run_stage(name: str, **arguments: object) -> None:
    from functools import partial
    from importlib import import_module

    from flame_core.reporting import starting

    recipe = arguments.get("recipe")
    starting(" ".join(["flame", name.replace("_", "-"), *([str(recipe)] if recipe else [])]))

    from flame_core.graph.links import require_links
    from flame_core.graph.steady_params import listed_params, require_steady
    from flame_core.graph.versions import require_versions
    from flame_core.layout import Layout
    from flame_core.names import did_you_mean
    from flame_core.outside.noted import noting
    from flame_core.params import load_params
    from flame_core.processes.nodes import nodes

    layout = Layout.find()
    require_versions(layout)
    stage = "embed" if name == "embed_texts" else name if recipe is None else f"{name}@{recipe}"
    listed = listed_params(layout, stage)
    params = load_params(layout)
    if recipe is not None and recipe not in params.train:
        hint = did_you_mean(str(recipe), params.recipes)
        raise ParamsError(
            f"{recipe!r} is not among the recipes of {layout.params};{hint} they are {', '.join(params.recipes)}"
        )
    if recipe is not None:
        require_links(layout, params)
    run = partial(import_module(f"flame_core.stages.{name}").run, params, layout, **arguments)
    if name == "train" and (where := nodes()) is not None and not where.first:
        run()
        return  # the first node writes the model, and records it
    with noting(params, layout, stage) as reads_outside:
        run()
        follows_from_more = reads_outside or name in ("download", "embed_texts")  # than DVC knows
        recorded_here = arguments.get("retry_failed") or follows_from_more
        if recorded_here or "DVC_STAGE" in os.environ:
            require_steady(layout, stage, listed)
    if recorded_here:
        from flame_core.commands.recorded_stage import record_stage

        record_stage(layout, stage)


def _one(recipe: str | None, named: str | None) -> str:
    """The recipe, given either as an argument or as an option."""
    if (recipe is None) == (named is None):
        raise typer.BadParameter("name one recipe: flame train RECIPE, or flame train --recipe RECIPE")
    return recipe or named or ""


@app.command(rich_help_panel=STAGES)
def download(retry_failed: RetryFailed = False) -> None:
    """Fetch image-text pairs from every source."""
    _run_stage("download", retry_failed=retry_failed)


@app.command(rich_help_panel=STAGES)
def fetch_llm() -> None:
    """Fetch the frozen LLM and convert it to safetensors."""
    _run_stage("fetch_llm")


@app.command(rich_help_panel=STAGES)
def ingest(retry_failed: RetryFailed = False) -> None:
    """Check, deduplicate and split the pairs into shards."""
    _run_stage("ingest", retry_failed=retry_failed)


@app.command(rich_help_panel=STAGES)
def caption(retry_failed: RetryFailed = False) -> None:
    """Write short and long captions."""
    _run_stage("caption", retry_failed=retry_failed)


@app.command(rich_help_panel=STAGES)
def embed() -> None:
    """Read every caption with the frozen LLM's facet prompts."""
    _run_stage("embed")


@app.command(rich_help_panel=STAGES)
def embed_texts() -> None:
    """Add the texts of new benchmarks to the embeddings, without embedding the training set again."""
    _run_stage("embed_texts")


@app.command(rich_help_panel=STAGES)
def cluster() -> None:
    """Cluster the training captions' vectors; needs a section `cluster` in the params."""
    _run_stage("cluster")


@app.command(rich_help_panel=STAGES)
def features() -> None:
    """Store a frozen tower's vectors of the pictures; needs a section `features` in the params."""
    _run_stage("features")


concepts.add_to(app, _run_stage, STAGES)


@app.command(rich_help_panel=STAGES)
def concept_fit() -> None:
    """Fit accuracy over the frequency of concepts; needs a section `concept_fit` in the params."""
    _run_stage("concept_fit")


@app.command(rich_help_panel=STAGES)
def lexical() -> None:
    """Find the words of the training captions; needs a section `lexical` in the params."""
    _run_stage("lexical")


@app.command(rich_help_panel=STAGES)
def prompts() -> None:
    """Learn soft prompts that make the LLM write a caption; needs a section `prompts` in the params."""
    _run_stage("prompts")


@app.command(rich_help_panel=STAGES)
def codes() -> None:
    """Put patches of the training pictures into codes; needs a section `codes` in the params."""
    _run_stage("codes")


@app.command(rich_help_panel=STAGES)
def select() -> None:
    """Select training samples by their pictures' codes; needs a section `select` in the params."""
    _run_stage("select")


@app.command(rich_help_panel=STAGES)
def noise() -> None:
    """Draw the order by which recipes with `noise` swap texts; needs a section `noise` in the params."""
    _run_stage("noise")


@app.command(rich_help_panel=STAGES)
def semdedup() -> None:
    """Select training samples without semantic duplicates; needs a section `semdedup` in the params."""
    _run_stage("semdedup")


@app.command(rich_help_panel=STAGES)
def scores() -> None:
    """Score training samples by models, and select by the scores; needs a section `scores` in the params."""
    _run_stage("scores")


@app.command(rich_help_panel=STAGES)
def domains() -> None:
    """Fetch labelled pictures of other domains; needs a section `domains` in the params."""
    _run_stage("domains")


@app.command(rich_help_panel=STAGES)
def tune() -> None:
    """Train and test small heads on frozen features; needs a section `tune` in the params."""
    _run_stage("tune")


@app.command(rich_help_panel=STAGES)
def adapt_llm() -> None:
    """Teach the LLM to embed captions, with LoRA; needs a section `adapt_llm` in the params."""
    _run_stage("adapt_llm")


@app.command(rich_help_panel=STAGES)
def caption_lm() -> None:
    """Train a captioner of pictures through the frozen LLM; needs a section `caption_lm` in the params."""
    _run_stage("caption_lm")


@app.command(rich_help_panel=STAGES)
def link(recipe: Recipe = None, named: NamedRecipe = None) -> None:
    """Tell DVC by digest what a recipe needs: its teacher, sidecars, selection of keys."""
    _run_stage("link", recipe=_one(recipe, named))


@app.command(rich_help_panel=STAGES)
def train(recipe: Recipe = None, named: NamedRecipe = None) -> None:
    """Train the image tower of a recipe."""
    _run_stage("train", recipe=_one(recipe, named))


@app.command(rich_help_panel=STAGES)
def evaluate(recipe: Recipe = None, named: NamedRecipe = None) -> None:
    """Measure a trained model on the held-out split and write its report."""
    _run_stage("evaluate", recipe=_one(recipe, named))


@app.command(rich_help_panel=STAGES)
def baselines() -> None:
    """Measure other people's models on the same benchmarks."""
    _run_stage("baselines")


@app.command(rich_help_panel=STAGES)
def compare() -> None:
    """Put all recipes into one table and one chart."""
    _run_stage("compare")


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
