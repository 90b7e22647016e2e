"""Commands that read and move MLflow's records: `flame tracking`, `promote`, `lineage`, `reproduce`, `register`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flame_core.files.whole_files import write_output

AUDIT = "Audit"
Model = Annotated[
    str, typer.Argument(help="models:/flame@champion, models:/flame/3, runs:/<id>, or a folder like data/models/flame")
]
tracking = typer.Typer(help="Show what MLflow has recorded, and send what it has not.", no_args_is_help=True)


def _starting(command: str) -> None:
    """Say that the command runs, before MLflow's import, which takes seconds."""
    from flame_core.reporting import starting

    starting(f"{command}: reads what MLflow has")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(tracking, name="tracking", rich_help_panel=AUDIT)
    for command in (promote, register, lineage, reproduce):
        app.command(rich_help_panel=AUDIT)(command)


@tracking.command()
def replay(
    everything: Annotated[
        bool, typer.Option("--all", help="Send whole journals again, for example to another server.")
    ] = False,
) -> None:
    """Send events that MLflow did not receive during an outage."""
    _starting("flame tracking replay")
    from flame_core.layout import Layout
    from flame_core.reporting import facts
    from flame_core.tracking.shipper import deliver_all
    from flame_core.tracking.store import all_journals, require_tracking

    layout = Layout.find()
    address = require_tracking(layout)
    journals = all_journals(layout)
    if everything:
        for journal in journals:
            journal.send_again(address)  # which duplicates nothing and moves no alias
    sent = deliver_all(journals, address)
    facts("tracking replay", {"journals": len(journals), "events sent": sent, "address": address})


@tracking.command()
def status() -> None:
    """Show every training's journal, and how many of its events still wait."""
    _starting("flame tracking status")
    from flame_core.layout import Layout
    from flame_core.reporting import table
    from flame_core.tracking.store import all_journals, require_tracking

    layout = Layout.find()
    address = require_tracking(layout)
    rows = []
    for journal in all_journals(layout):
        mark = journal.delivered(address)
        rows.append((journal.folder.parent.name, journal.key, mark.run_id or "", str(journal.pending(address))))
    table(f"trainings, against {address}", ["workspace", "training", "MLflow run", "events waiting"], rows)


@tracking.command()
def history(html: Annotated[Path | None, typer.Option(help="Write a page with charts.")] = None) -> None:
    """Show every measured model, of all recipes, over time."""
    _starting("flame tracking history")
    from flame_core.layout import Layout
    from flame_core.pages.compare import metric_title
    from flame_core.params import load_params
    from flame_core.reporting import table
    from flame_core.settings import settings
    from flame_core.tracking.history import read_history
    from flame_core.tracking.history_page import history_page
    from flame_core.tracking.pages import served, show_pages
    from flame_core.tracking.store import require_tracking, warn_of_waiting

    layout = Layout.find()
    warn_of_waiting(layout)
    found = read_history(load_params(layout), layout)
    model = settings().registered_model
    columns = ["trained", "recipe", model, "standing", *map(metric_title, found.metrics), "pictures", "commit"]
    rows = []
    for each in found.models:
        scores = [each.scores.get(metric) for metric in found.metrics]
        shown = [f"{100 * score.value:.1f} %" if score else "not measured" for score in scores]
        version = f"version {each.version}" if each.version else ""
        about = (f"{each.when:%Y-%m-%d %H:%M}", each.recipe, version, each.standing)
        rows.append((*about, *shown, each.split, each.commit))
    table("models over time", columns, rows)
    if found.comparison:
        running = served(require_tracking(layout), found.models[-1].run_id)
        show_pages({"MLflow comparison": found.comparison}, running)
    if html:
        write_output(html, history_page(found, model), "--html")


@tracking.command()
def seeds(
    against: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Show differences from it, in standard errors.")
    ] = None,
) -> None:
    """Show mean and standard deviation in %, of trainings that differ in their seed alone."""
    _starting("flame tracking seeds")
    from flame_core.layout import Layout
    from flame_core.pages.compare import metric_title
    from flame_core.params import load_params
    from flame_core.reporting import table
    from flame_core.tracking.history import read_history
    from flame_core.tracking.seeds import rows, settings_of
    from flame_core.tracking.store import warn_of_waiting

    layout = Layout.find()
    warn_of_waiting(layout)
    found = read_history(load_params(layout), layout)
    settings = settings_of(found.models)
    columns = ["recipe", "its own", "seeds", *map(metric_title, found.metrics), "pictures"]
    table("trainings by seed, in %", columns, rows(settings, found.metrics, against))
    if all(len(each.models) < 2 for each in settings):
        typer.echo("No setting has two seeds: `flame run --set train.seed=1` trains another one in a workspace.")


def promote(
    version: Annotated[str | None, typer.Option(help="Version to judge (default: the challenger).")] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the previous champion the champion again.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Judge --version although it was rolled back.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for --rollback and --again.")] = "",
) -> None:
    """Make the challenger champion if the gate allows it; exit code 4 if it does not."""
    _starting("flame promote")
    from flame_core.errors import GateError, ParamsError
    from flame_core.layout import Layout
    from flame_core.params import load_params
    from flame_core.reporting import facts
    from flame_core.settings import settings
    from flame_core.tracking import promotion
    from flame_core.tracking.gate import show
    from flame_core.tracking.store import warn_of_waiting

    layout = Layout.find()
    warn_of_waiting(layout)
    name = settings().registered_model
    if rollback and (again or version):
        raise ParamsError("--rollback takes only --reason: it always rolls back the champion")
    if reason and not (rollback or again):
        raise ParamsError("--reason goes with --rollback or --again")
    if rollback:
        old, now = promotion.rollback(layout, reason)
        facts("promote --rollback", {"rolled back": f"{name} version {old}", "champion": f"{name} version {now}"})
        return
    if again:
        promotion.allow_again(layout, version, reason)
    found = promotion.promote(load_params(layout), layout, version)
    if found.verdict is None:
        challenger = "none; the next other model that `flame run` evaluates here becomes it"
        if version:
            challenger = f"{name} version {version} is the champion already"
        elif layout.is_workspace:
            makes = f"`flame register RECIPE --workspace {layout.root.name}` makes a model of this workspace one"
            challenger = f"none; {makes}"
        facts("promote", {"challenger": challenger, "champion": found.champion or "none"})
        return
    show(found.verdict)
    facts("promote", {"challenger": f"{name} version {found.challenger}", "champion": found.champion or "none"})
    if not found.verdict.promoted:
        raise GateError(f"{name} version {found.challenger} is not promoted: {found.verdict.reason}")


def register(
    recipe: Annotated[str, typer.Argument(help="A recipe that was trained in the workspace.")],
    workspace: Annotated[str, typer.Option(help="Digest of the workspace, a folder of .flame/runs/.")],
) -> None:
    """Register the model of a workspace as a version and challenger; models of the main line register themselves."""
    _starting("flame register")
    from flame_core.layout import Layout
    from flame_core.reporting import facts
    from flame_core.tracking.evaluation import register_workspace

    facts("register", register_workspace(Layout.find(), workspace, recipe))


def lineage(
    model: Annotated[str | None, typer.Argument(help="As for reproduce; none with --contains.")] = None,
    contains: Annotated[
        str | None,
        typer.Option(metavar="SAMPLE", help="List all models by whether they saw a sample: key, sha256 or address."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with the chain.")] = None,
) -> None:
    """Print the chain from a model to its sources and verify each link; exit code 1 if one is broken."""
    _starting("flame lineage")
    if (model is None) == (contains is None):
        raise typer.BadParameter("name one model, or --contains with a key or a sha256")
    if model is None:
        _contains(str(contains), as_json)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.tree import Tree

    from flame_core.layout import Layout
    from flame_core.tracking.lineage import trace
    from flame_core.tracking.lineage_page import MARKS, lineage_page

    found = trace(Layout.find(), model)
    if html:
        write_output(html, lineage_page(found), "--html")
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        tree = Tree(escape(model))
        for link in found.links:
            branch = tree.add(f"{MARKS[link.status]} [bold]{escape(link.name)}[/] [dim]{link.status}[/]")
            for name, value in link.facts.items():
                branch.add(f"{escape(name)}: {escape(value)}")
            for note in link.notes:
                branch.add(f"[red]{escape(note)}[/]" if link in found.broken else escape(note))
        Console().print(tree, highlight=False)
    sys.exit(1 if found.broken else 0)


def _contains(sample: str, as_json: bool) -> None:
    """Print which models' training data held a sample."""
    from dataclasses import asdict

    from flame_core.forgetting.models import who_saw
    from flame_core.layout import Layout
    from flame_core.reporting import table

    rows = who_saw(Layout.find(), sample)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        shown = [(row.name, row.run, ", ".join(row.versions), row.held) for row in rows]
        table(f"training data with {sample}", ["run", "id", "versions", "held it"], shown)


def reproduce(
    model: Model,
    everything: Annotated[bool, typer.Option("--all", help="Also compute the inputs again.")] = False,
) -> None:
    """Train a recorded model again and compare bytes and metrics; exit code 1 if they differ."""
    _starting("flame reproduce")
    from flame_core.layout import Layout
    from flame_core.reporting import facts
    from flame_core.tracking.reproduce import reproduce as make_again

    found = make_again(Layout.find(), model, everything)
    facts(
        f"reproduce {model}",
        {
            "recorded weights": found.recorded_sha256,
            "weights now": found.sha256,
            "bytes": "the same" if found.same_bytes else "differ",
            "metrics": "the same" if not found.differing else f"{len(found.differing)} differ",
            **{name: f"{old} then, {new} now" for name, (old, new) in list(found.differing.items())[:10]},
            "folder": found.folder,
        },
    )
    sys.exit(0 if found.same_bytes and not found.differing else 1)
