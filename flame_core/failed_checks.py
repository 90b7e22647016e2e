"""Which checks of a run's outs have not passed: shown at its end, so that none is lost among the lines before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flame_core import gates, reporting
from flame_core.errors import InputError
from flame_core.layout import Layout


def failed_checks(
    layout: Layout, recipes: Sequence[str], since: float = 0.0, optional: Sequence[Path] = ()
) -> list[tuple[Path, gates.Check]]:
    """(out, check) of all checks in the outs of these recipes and of the stages that they share.

    Args:
        layout: of the run.
        recipes: models and reports of others are old, and left out.
        since: only outs that were written after this time, in seconds since the epoch.
        optional: outs of the stages that params have sections for, and of a project's own; others may be old.
    """
    found: list[tuple[Path, gates.Check]] = []
    for out in dict.fromkeys(_outs(layout, recipes, optional)):  # each once
        file = out / gates.CHECKS
        try:
            if file.stat().st_mtime >= since:
                found += [(out, check) for check in gates.read(out) if not check.passed]
        except (OSError, InputError):  # not made yet, or damaged: the stage that needs it tells
            continue
    return found


def show_failed_checks(
    layout: Layout,
    recipes: Sequence[str],
    since: float = 0.0,
    *,
    optional: Sequence[Path] = (),
    advised: bool = True,
) -> None:
    """Print them, each once, and below the last one with a remedy that remedy, if it is `advised`."""
    failed = failed_checks(layout, recipes, since, optional)
    if not failed:
        return
    lines = ["checks that have not passed:"]
    advice = gates.with_advice(check for _, check in failed)
    for (out, check), (_, last) in zip(failed, advice, strict=True):
        kind = "" if check.blocking else " (does not block)"
        first, *more = gates.told(check, advised=advised and last)
        lines += [f"{out.relative_to(layout.root)}{kind}: {first}", *(f"  {line}" for line in more)]
    reporting.console.print("\n  ".join(lines), markup=False, highlight=False, soft_wrap=True)


def _outs(layout: Layout, recipes: Sequence[str], optional: Sequence[Path]) -> Iterator[Path]:
    yield from (layout.raw, layout.shards, layout.captions, layout.train_embeddings, layout.embeddings)
    yield from optional
    for recipe in recipes:
        yield from (layout.model(recipe), layout.report(recipe))
    yield from (layout.baselines, layout.comparison)
