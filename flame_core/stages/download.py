"""download: every source of params -> `data/raw/<source>/`.

    flame download

Each run of the stage reads the sources again; what has not changed comes from the work cache.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from flame_core import gates, reporting
from flame_core.data.forgotten import FORGOTTEN, read_forgotten
from flame_core.data.sources import Problem, open_source
from flame_core.data.sources.accounting import UnusedGroup
from flame_core.data.sources.listing import PAIRS, left_out, read_source
from flame_core.errors import ComputationError, InputError
from flame_core.gates import Check
from flame_core.layout import Layout
from flame_core.params import Params, UrlsSource
from flame_core.work import Unit, WorkCache, gather

log = logging.getLogger(__name__)
_NAMED = 10  # files named in the error about an empty source


def run(params: Params, layout: Layout, *, retry_failed: bool = False) -> None:
    """Write `data/raw/`.

    Raises:
        InputError: a source is missing, or has no pairs.
        ResourceError: a program, the network or disk space is missing.
    """
    work = WorkCache(layout.work, "download", retry_failed=retry_failed)
    files: dict[str, Path] = {}
    sha256: dict[str, str] = {}
    checks: list[Check] = []
    shown: dict[str, str] = {}
    pairs = 0
    unreadable: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for name, source in sorted(params.sources.items()):
        unit = open_source(source, layout, name).download(work)
        about = read_source(unit.folder)
        problems, unused = left_out(about)
        _require_forgotten(layout, name, unit)
        if not about["pairs"]:
            raise InputError(f"source {name} ({source.kind}) is empty: it has no pairs{_instead(problems, unused)}")
        files |= {f"{name}/{file}": unit.file(file) for file in unit.names()}
        sha256 |= {f"{name}/{file}": digest for file, digest in unit.sha256.items()}
        checks += _checks(name, about["pairs"], problems)
        if isinstance(source, UrlsSource):
            share = about["pairs"] / about["addresses"]
            checks.append(_success(name, share, source.min_success))
            for row in about["outcomes"]:
                if row["outcome"] != "ok":
                    others[f"{row['outcome'].replace('_', ' ')}: {row['reason']}"] += row["count"]
        pairs += about["pairs"]
        for problem in problems:
            unreadable[f"unreadable: {problem.reason}"] += problem.count
        for group in unused:
            others[f"not used: {group.reason}"] += group.count
        if FORGOTTEN in about:
            others[FORGOTTEN] += about[FORGOTTEN]
        number = sum(problem.count for problem in problems)
        told = f", {number:,} unreadable" if number else ""
        shown[name] = f"{about['pairs']:,} pairs{told} ({'new' if unit.computed else 'as before'})"
    gather(layout.raw, layout.state, files, {gates.CHECKS: gates.to_bytes(checks)}, sha256)
    reporting.facts(
        "Sources", {**shown, "pairs": pairs, **dict(unreadable.most_common()), **dict(others.most_common())}
    )
    gates.warn(checks)


def _require_forgotten(layout: Layout, name: str, unit: Unit) -> None:
    """Refuse a listing with a pair that was forgotten: its source does not heed `opt_out.parquet`."""
    forgotten = read_forgotten(layout.opt_out).of(name)
    if not forgotten.rows:
        return
    rows = pq.ParquetFile(unit.file(PAIRS)).read(["key", "sha256"])
    for key, sha256 in zip(rows.column("key").to_pylist(), rows.column("sha256").to_pylist(), strict=True):
        if forgotten.names(key, sha256):
            raise ComputationError(f"source {name} lists {key}, which {layout.opt_out} says is forgotten")


def _instead(problems: Sequence[Problem], unused: Sequence[UnusedGroup]) -> str:
    """What a source without pairs has instead, in a few lines."""
    lines = [f"{problem.file}: {problem.detail}" for problem in problems] + [group.detail for group in unused]
    more = [f"and {len(lines) - _NAMED:,} more"] if len(lines) > _NAMED else []
    return "".join(f"\n  {line}" for line in (*lines[:_NAMED], *more))


def _success(name: str, share: float, least: float) -> Check:
    return Check(
        f"{name}/success",
        share >= least,
        "enough of the addresses gave a picture; `flame download --retry-failed` asks again for those that may pass",
        value=round(share, 4),
        threshold=least,
        blocking=False,
    )


def _checks(name: str, pairs: int, problems: Sequence[Problem]) -> list[Check]:
    return [
        Check(f"{name}/pairs", pairs > 0, "the source lists pairs", value=pairs, threshold=1),
        Check(
            f"{name}/readable",
            not problems,
            "every file of the source can be read",
            value=sum(problem.count for problem in problems),
            threshold=0,
            blocking=False,
            keys=sorted({problem.file for problem in problems})[:20],
        ),
    ]
