"""`flame forget`: samples are never used again, and their bytes are deleted; docs/forgetting.md has the details."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flame_core.commands.project import PROJECT

if TYPE_CHECKING:
    from flame_core.forgetting.forget import Report
    from flame_core.layout import Layout

_NAMED = 20  # rows of a list


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel=PROJECT)(forget)


def forget(
    what: Annotated[
        list[str] | None, typer.Argument(help="Keys, sha256 of pictures, pHashes (p: and 16 hex digits), addresses.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file of them, one per line; or another opt_out.parquet.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for opt_out.parquet; no names of people.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be forgotten and deleted.")] = False,
) -> None:
    """Forget samples: rebuild the shards without them, delete old bytes, tag models that saw them."""
    from flame_core.reporting import starting

    starting("flame forget: looks through all revisions of the data")
    from flame_core.forgetting.forget import forget as do_forget
    from flame_core.forgetting.requests import parse_requests, read_requests
    from flame_core.graph.versions import require_versions
    from flame_core.layout import Layout
    from flame_core.params import load_params

    layout = Layout.find()
    require_versions(layout)
    requests = parse_requests(what or [], "the command line")
    if file is not None:
        requests |= read_requests(file)
    report = do_forget(load_params(layout), layout, requests, reason, dry_run=dry_run)
    _show(report, layout, dry_run)
    sys.exit(5 if report.unfinished else 0)


def _show(report: Report, layout: Layout, dry_run: bool) -> None:
    from rich.markup import escape

    from flame_core.data.buckets.staging import stage_root
    from flame_core.reporting import console, facts, table

    found, purged = report.found, report.purged
    rows = [(key, ", ".join(sorted(sample.splits)) or "no sample") for key, sample in sorted(found.samples.items())]
    verb = "would be" if dry_run else "were"
    table(f"samples that {verb} forgotten", ["key", "split"], rows[:_NAMED])
    missed = found.unmatched.lines()
    if missed:
        table("asked for, and not found", ["key or address"], [(line,) for line in missed[:_NAMED]])
    facts(
        "forget, dry run" if dry_run else "forget",
        {
            "samples": len(found.samples),
            "asked for, and not found": len(missed),
            f"files that {verb} deleted": len(purged.files),
            f"units of the work cache that {verb} deleted": len(purged.units),
            f"objects of DVC's cache that {verb} deleted": len(purged.objects),
            f"objects of remotes that {verb} deleted": len(purged.remote),
            **{name: f"saw {number} forgotten samples, and is tagged" for name, number in report.models.items()},
        },
    )
    if dry_run:
        for name in [*purged.files, *purged.units, *purged.objects, *purged.remote]:
            console.print(escape(name), highlight=False, soft_wrap=True)
    sources = sorted({each for sample in found.samples.values() for each in sample.sources})
    unreached = [
        *(f"the source itself: {each}" for each in sources),
        *purged.unreached,
        "other clones of this project with their caches, exported models, bundles, files of --out and --page, backups",
        "other projects with the same picture; if they share DVC's cache or a remote, run `flame forget` there next",
    ]
    if stage_root().is_dir():
        unreached.append(f"copies of buckets in {stage_root()}: delete them, or they go when they are not used")
    if (layout.state / "dagster").is_dir():
        unreached.append("contact sheets in Dagster's event log: they are small pictures of a few samples")
    for each in unreached:
        console.print(f"[bold yellow]not reached:[/] {escape(each)}", highlight=False, soft_wrap=True)
    for each in report.unfinished:
        console.print(f"[bold red]not done:[/] {escape(each)}; the same command tries again", soft_wrap=True)
    if not dry_run:
        console.print("Commit opt_out.parquet, dvc.yaml and dvc.lock; `flame run` brings the rest up to date.")
