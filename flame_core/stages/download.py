"""The stage `download`: every source of params into `data/raw/<source>/`.

    flame download

A source is looked at anew whenever the stage runs; what has not changed since is taken from the work cache.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from flame_core import gates, reporting
from flame_core.data.sources import open_source
from flame_core.data.sources.listing import read_source
from flame_core.errors import InputError
from flame_core.gates import Check
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.work import WorkCache, gather

log = logging.getLogger(__name__)


def run(params: Params, layout: Layout, *, retry_failed: bool = False) -> None:
    """Write `data/raw/`.

    Raises:
        InputError: a source is absent, or holds no pair at all.
        ResourceError: a program, the network or room on the disk is missing.
    """
    work = WorkCache(layout.work, "download", retry_failed=retry_failed)
    files: dict[str, Path] = {}
    checks: list[Check] = []
    shown: dict[str, str] = {}
    pairs = 0
    unreadable: Counter[str] = Counter()
    for name, source in sorted(params.sources.items()):
        unit = open_source(source, layout).download(work)
        about = read_source(unit.folder)
        if not about["pairs"]:
            raise InputError(f"source {name} ({source.kind}) is empty: there is not a single pair in it")
        files |= {f"{name}/{file}": unit.file(file) for file in unit.names()}
        checks += _checks(name, about["pairs"], about["problems"])
        pairs += about["pairs"]
        unreadable.update(problem["reason"] for problem in about["problems"])
        problems = f", {len(about['problems'])} unreadable" if about["problems"] else ""
        shown[name] = f"{about['pairs']:,} pairs{problems} ({'new' if unit.computed else 'as before'})"
    gather(layout.raw, layout.state, files, {gates.CHECKS: gates.to_bytes(checks)})
    reporting.facts(
        "Sources", {**shown, "pairs": pairs, **{f"unreadable: {why}": count for why, count in unreadable.most_common()}}
    )


def _checks(name: str, pairs: int, problems: list[dict[str, str]]) -> list[Check]:
    return [
        Check(f"{name}/pairs", pairs > 0, "the source lists pairs", value=pairs, threshold=1),
        Check(
            f"{name}/readable",
            not problems,
            "every file of the source can be read",
            value=len(problems),
            threshold=0,
            blocking=False,
            keys=sorted({problem["file"] for problem in problems})[:20],
        ),
    ]
