"""Forgets samples, step by step; each step can be repeated, so a killed `flame forget` is continued by the next one.

1. Find the samples, and keep what they are recognised by in `.flame/forget/pending.json` until all is done.
2. Add them to `opt_out.parquet`, and the edges from it to `dvc.yaml`: from here on no stage uses them.
3. Rebuild `data/raw` and `data/shards`, also of workspaces (`rebuild.py`), after the stages that are at work.
4. Tag the models that saw them, also those that these stages have made.
5. Delete old bytes: outs, work cache, kept reports, DVC's cache, its remotes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flame_core.captions.tables.places import table_place
from flame_core.data.forgotten import Forgotten, added, new_salt, read_forgotten, write_forgotten
from flame_core.dvc_project.recorded import LOCK
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.files.whole_folders import alone, scratch
from flame_core.forgetting.finding import Found, find, note_in_line
from flame_core.forgetting.models import tag_models
from flame_core.forgetting.purge import Purged, purge
from flame_core.forgetting.rebuild import rebuild, write_edges
from flame_core.forgetting.requests import Requests, parse_requests
from flame_core.forgetting.revisions import OUTS, Revision, cache_folder, cached, trees
from flame_core.forgetting.traces import Traces
from flame_core.git import git
from flame_core.graph.links import PIPELINE, stages_of
from flame_core.graph.own_tables import is_made
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.tracking.store import tracking_address
from flame_core.workspace import require_dvc

_PENDING = "pending.json"
_NAMED = 5  # revisions in one line
log = logging.getLogger(__name__)


@dataclass
class Report:
    """What was forgotten, what was deleted (or would be), which models saw it, and what could not be reached."""

    found: Found
    purged: Purged
    models: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)  # the same command tries these again


def forget(params: Params, layout: Layout, requests: Requests, reason: str, *, dry_run: bool) -> Report:
    """Forget what is asked for, and what an interrupted call was asked for; with `dry_run`, only find it.

    One at a time in a project: each adds to what the last one has written.

    Raises:
        ParamsError: nothing is asked for, or `dvc.yaml` cannot be edited.
        InputError: a table cannot be read.
        ComputationError: a stage failed; the same command continues.
    """
    if layout.is_workspace:
        raise ParamsError(f"run `flame forget` in the project, {layout.project}: it covers its workspaces")
    pending = layout.state / "forget" / _PENDING
    with nullcontext() if dry_run else alone(pending, "forgets samples of this project"):
        return _forget(params, layout, requests, reason, pending, dry_run=dry_run)


def _forget(params: Params, layout: Layout, requests: Requests, reason: str, pending: Path, *, dry_run: bool) -> Report:
    traces, asked, reason, date = _continued(pending, reason)
    requests |= asked
    if not requests:
        raise ParamsError("name what to forget: keys, sha256, pHashes (p:...) or addresses, or a --file of them")
    known = read_forgotten(layout.opt_out)
    _require_pulled(layout)
    cache = cache_folder(layout)
    revisions = _revisions(layout, cache)
    found = find(revisions, layout.work / "ingest", requests)
    traces.update(found.traces)
    _recognise_known(traces, requests, known)
    own = _own_places(params, layout)
    unseen = _unseen(layout, revisions)
    unseen += [f"the table of {kind} captions itself: {path}" for kind, path in _own_tables(params, layout)]
    if dry_run:
        report = Report(found, _delete(layout, cache, traces, own, None)[0])
        report.purged.unreached += unseen
        return report
    kept = {"requests": requests.lines(), "reason": reason, "date": date}
    traces.write(pending, **kept)
    salt = known.salt or requests.theirs.salt or new_salt()
    theirs = requests.theirs.rows_under(salt)
    if lost := len(requests.theirs.rows) - len(theirs):
        log.warning("%d rows of the other file are addresses hashed with its own salt: ask for these again", lost)
    known = Forgotten(added(known.rows, theirs), salt)  # `held` is only there
    rows = added(known.rows, found.rows(requests, known, date, reason))
    write_forgotten(layout.opt_out, rows, known.salt)
    write_edges(layout.project / PIPELINE)
    report = Report(found, Purged())
    try:
        rebuild(params, layout, traces.keys, traces.digests)
    finally:
        _tag(layout, report)
    note_in_line(_revisions(layout, cache), traces)  # a stage may have stored some before the rebuilding began
    report.purged, unfinished = _delete(layout, cache, traces, own, lambda: traces.write(pending, **kept))
    report.purged.unreached += unseen
    report.unfinished += unfinished
    if not report.unfinished:
        for left in (pending, *pending.parent.glob(f".{pending.name}.*")):  # the second of a kill while it was written
            left.unlink()
    return report


def _revisions(layout: Layout, cache: Path | None) -> list[Revision]:
    return [*trees(layout), *(cached(layout, cache) if cache else ())]


def _tag(layout: Layout, report: Report) -> None:
    try:
        if tracking_address(layout) is not None:
            report.models = tag_models(layout, read_forgotten(layout.opt_out))
    except ResourceError as error:
        report.unfinished.append(f"models are not tagged: {error}")


def _require_pulled(layout: Layout) -> None:
    """Refuse a clone whose data are only in a remote: what holds the samples could not be told.

    Raises:
        InputError: says what to pull.
        ParamsError: DVC cannot read the project, or its folder is not there.
    """
    if find_spec("dvc") is None or not (layout.project / LOCK).is_file():
        return
    require_dvc(layout)
    from flame_core.dvc_project.absent import NotPulledError, require_pulled
    from flame_core.dvc_project.errors import DvcBusyError, DvcProjectError

    try:
        require_pulled(layout.project, ["download", "ingest", "caption", "embed"])
    except NotPulledError as error:
        raise InputError(f"the samples cannot be looked for: {error}") from None
    except DvcBusyError as error:
        raise ResourceError(f"{error}; try again when it has ended") from None
    except DvcProjectError as error:
        raise ParamsError(str(error)) from None


def _unseen(layout: Layout, revisions: Sequence[Revision]) -> list[str]:
    """What to tell of revisions that this clone lacks, or whose data this machine never had."""
    told: list[str] = []
    if git(layout.project, "rev-parse", "--is-shallow-repository") == "true":
        told.append("commits that this shallow clone lacks: `git fetch --unshallow` and `dvc fetch --all-commits`, "
                    "then the same command, finds what only their data name")  # fmt: skip
    names = [revision.name for revision in revisions if revision.unseen]
    if not names:
        return told
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [
        *told,
        f"samples that only the data of {', '.join(names[:_NAMED])}{more} name, which are not on this machine: "
        "`dvc fetch --all-commits`, then the same command, finds them",
    ]


def _continued(pending: Path, reason: str) -> tuple[Traces, Requests, str, str]:
    """What an interrupted call has left: traces, requests, reason, date."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    try:
        content = json.loads(pending.read_bytes())
        asked = parse_requests(content["requests"], str(pending))
        return Traces.read(content), asked, reason or content["reason"], content["date"]
    except FileNotFoundError:
        return Traces(), Requests(), reason, today
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{pending} is damaged ({error}): an interrupted `flame forget` wrote it. Remove it, and name again what "
            "is to be forgotten"
        ) from None


def _recognise_known(traces: Traces, requests: Requests, known: Forgotten) -> None:
    """What was forgotten before and is asked for again is searched for by what the file still knows."""
    for row in known.rows:
        named = row.key in requests.keys or not requests.sha256.isdisjoint(row.sha256)
        if named or any(not known.salted_forms(url).isdisjoint(row.addresses) for url in requests.urls):
            traces.keys |= {row.key} if row.key else set()
            traces.digests |= set(row.sha256)


def _own_places(params: Params, layout: Layout) -> list[Path]:
    """The user's own files below `data` that sources read, and tables that no stage makes: these are not deleted."""
    named: list[Any] = [*params.sources.values(), *(domain.source for domain in (params.domains or {}).values())]
    named += [params.concepts.images.tagger] if params.concepts and params.concepts.images else []
    paths = [path for each in named if (path := getattr(each, "path", None))]
    paths += [path for _, path in _own_tables(params, layout)]
    places = [layout.resolve(path).resolve() for path in paths]
    data, outs = layout.data.resolve(), [(layout.project / out).resolve() for out in OUTS]
    inside = [place for place in places if data in place.parents]
    return [place for place in inside if not any(place.is_relative_to(out) for out in outs)]


def _own_tables(params: Params, layout: Layout) -> list[tuple[str, str]]:
    """(kind, path) of the tables of captions that no stage makes."""
    stages = stages_of(layout.project / PIPELINE)
    tables = [(kind, path) for kind, chosen in params.caption.tables for _, path in chosen.tables]
    return [(kind, path) for kind, path in tables if not is_made(layout, table_place(layout, path), stages)]


def _delete(
    layout: Layout, cache: Path | None, traces: Traces, own: Sequence[Path], keep: Callable[[], None] | None
) -> tuple[Purged, list[str]]:
    """Delete what holds the samples; only find it if `keep` is None. `keep()` is called when traces have grown."""
    delete = keep is not None
    purged = purge(layout, traces, own, delete=delete)
    unfinished: list[str] = []
    if cache is None or not traces or find_spec("dvc") is None:
        return purged, unfinished
    from flame_core.dvc_project.stores import delete_cached, delete_remote

    def holds(path: Path) -> bool:
        return traces.in_file(path)

    known = {path.parent.name + path.name for path in cache.glob("??/*") if path.suffix != ".dir"}
    refused: list[str] = []
    purged.objects = delete_cached(cache, traces.md5s, holds, delete=False, refused=refused)
    traces.md5s |= set(purged.objects)
    if keep is not None:
        keep()  # from now on the remotes' objects are known by md5, also after a kill
        delete_cached(cache, traces.md5s, lambda _: False, delete=True, refused=refused)
    with scratch(layout.state / "forget") as folder:  # a kill leaves nothing of a sample where nobody looks for it
        remote = delete_remote(layout.project, folder, traces.md5s, known, holds, delete=delete)
    purged.remote = [f"{name}: {md5}" for name, md5s in sorted(remote.objects.items()) for md5 in md5s]
    unfinished += refused
    unfinished += [f"remote {name}: {why}" for name, why in sorted(remote.unreached.items())]
    return purged, unfinished
