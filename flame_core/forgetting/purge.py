"""Deletes what holds forgotten samples below the project: files of outs, units of the work cache, reports, indexes.

The out of a stage loses single files and is made whole by the next `flame run`, since DVC sees that it is stale. A unit
goes as a whole. Databases are not edited: they are named.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from flame_core.captions.server.answers import Answers, answers_file
from flame_core.data.sources.listing import KEPT_COLUMNS
from flame_core.files.whole_folders import SCRATCH
from flame_core.forgetting.revisions import roots
from flame_core.forgetting.traces import Traces
from flame_core.layout import Layout
from flame_core.tracking.listings import file_md5
from flame_core.verification import DIGESTS
from flame_core.work import RECORD

_BASES = {".db", ".sqlite", ".sqlite3"}
_KEPT = {"README.md"}


@dataclass
class Purged:
    """What was deleted (or would be), by kind of place, and what could not be reached, with the reason."""

    files: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)  # of DVC's cache
    remote: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)


def purge(layout: Layout, traces: Traces, own: Sequence[Path] = (), *, delete: bool) -> Purged:
    """Delete everything below the project that holds what `traces` describe, except DVC's cache and `own` places."""
    done = Purged()
    for path in _out_files(layout):
        if any(path.resolve().is_relative_to(place) for place in own):
            continue
        if _holds(path, traces, done) or _in_line(path, traces):
            done.files.append(_shown(path, layout))
            if delete:
                path.unlink(missing_ok=True)
    for unit in _units(layout):
        if _unit_holds(unit, traces, done):
            done.units.append(_shown(unit, layout))
            if delete:
                shutil.rmtree(unit)
    answers = answers_file(layout)
    if answers.is_file():
        with closing(Answers(answers)) as file:
            if number := file.remove(traces.is_said_in, delete=delete):
                done.units.append(f"{_shown(answers, layout)}: {number:,} answers")
    for folder in ("tracking", "mlflow", "dagster", "search"):
        for path in sorted((layout.state / folder).rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            if path.suffix in _BASES:
                if _in_database(path, traces):
                    done.unreached.append(f"{_shown(path, layout)}: a database, which is not edited")
            elif _holds(path, traces, done):
                done.files.append(_shown(path, layout))
                if delete:
                    path.unlink(missing_ok=True)
    return done


def _shown(path: Path, layout: Layout) -> str:
    return path.relative_to(layout.project).as_posix()


def _out_files(layout: Layout) -> Iterator[Path]:
    for root in roots(layout):
        for folder in (root / "data", *_linked(root / "data")):
            for path in sorted(folder.rglob("*")):  # which does not look behind links
                if path.is_file() and path.name not in _KEPT:
                    yield path


def _linked(data: Path) -> list[Path]:
    """Folders of outs that are links to another disk; every out has its digests, and no folder of the user's has."""
    links = [path for path in sorted([*data.glob("*"), *data.glob("*/*")]) if path.is_symlink() and path.is_dir()]
    return [path for path in links if (path / DIGESTS).is_file() or any(path.glob(f"*/{DIGESTS}"))]


def _units(layout: Layout) -> Iterator[Path]:
    """Units, and folders in which an interrupted stage was writing one."""
    for stage in sorted(layout.work.glob("*")):
        found = sorted([*stage.glob("*"), *stage.glob(f"{SCRATCH}/*")])
        yield from (unit for unit in found if unit.is_dir() and unit.name != SCRATCH)


def _unit_holds(unit: Path, traces: Traces, done: Purged) -> bool:
    try:
        recorded = {file["sha256"] for file in json.loads((unit / RECORD).read_bytes())["files"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        recorded = set()
    if not recorded.isdisjoint(traces.files | traces.digests):
        return True
    files = [path for path in sorted(unit.rglob("*")) if path.is_file()]
    if any(_holds(path, traces, done) for path in files):
        return True
    stage = unit.parent.parent if unit.parent.name == SCRATCH else unit.parent
    return stage.name == "embed" and any(_in_line(path, traces) for path in files)


def _in_line(path: Path, traces: Traces) -> bool:
    """Whether vectors or kept columns stand in line with a file that names a sample."""
    vectors = path.suffix == ".safetensors" and "embed" in path.as_posix()
    if not (vectors or path.name == KEPT_COLUMNS) or not traces.md5s:
        return False
    try:
        return file_md5(path) in traces.md5s
    except FileNotFoundError:  # removed by another process
        return False


def _holds(path: Path, traces: Traces, done: Purged) -> bool:
    try:
        return traces.in_file(path)
    except FileNotFoundError:  # removed by another process
        return False
    except OSError as error:
        done.unreached.append(f"{path}: {error.strerror}")
        return False


def _in_database(path: Path, traces: Traces) -> bool:
    """Whether a database says a key or a long caption somewhere in its pages."""
    content = path.read_bytes()
    wanted = [*traces.keys, *traces.digests, *(text for text in traces.texts if len(text) >= 15)]
    return any(word.encode() in content for word in wanted)
