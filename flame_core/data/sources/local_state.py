"""Whether files of this machine's sources, or of its LLM, have changed since a stage read them.

DVC runs `download`, `fetch_llm` and `domains` when their params change. What a folder or a table holds is no param, and
must be none: a clone that has pulled `data/raw` need not have the folder. So a stage notes here, outside of DVC, what
it has seen, by name, size and time of the files, and `flame run` runs it anew if that is no longer so. These stages
read nothing that another stage makes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.data.buckets.bucket import is_address
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.walk import Walk
from flame_core.digest import json_bytes, value_digest
from flame_core.files.whole_files import put
from flame_core.layout import Layout
from flame_core.names import expanded
from flame_core.params import DebianSource, FolderSource, HubSource, Params, Source, UrlsSource, WebdatasetSource

FileState = tuple[str, int, int]  # name, size, time of the last change
Seen = dict[str, dict[str, str]]  # {stage: {source: digest}}, see `look`
READ_SOURCES = DOWNLOAD, FETCH_LLM, DOMAINS = "download", "fetch_llm", "domains"  # stages


@dataclass(frozen=True)
class _Input:
    """What a stage reads by one name: its params, and the files of this machine, sorted."""

    said: Any
    files: list[FileState]


def local_files(sources: Mapping[str, Source], layout: Layout) -> dict[str, list[FileState]]:
    """{source of this machine: its files, sorted}."""
    return {
        name: sorted(set(_source_files(source, layout)))
        for name, source in sources.items()
        if not isinstance(source, DebianSource | HubSource) and not is_address(source.path)
    }


def _source_files(source: FolderSource | UrlsSource | WebdatasetSource, layout: Layout) -> Iterator[FileState]:
    """The files of a source's folder or list, those behind links that it follows, and what it reads beside them."""
    place = layout.resolve(source.path)
    yield from _files(place)
    match source:
        case FolderSource():
            if source.links == "anywhere" and place.is_dir():
                linked = Walk(place, True, Problems(), Unused()).files
                yield from _states(place, (place / name for name in linked))
            if source.table is not None and _leads_out(source.table):
                yield from _files(place / expanded(source.table))
        case WebdatasetSource():
            yield from _states(place, place.glob(source.shards))
        case UrlsSource():
            for listed in source.opt_out.lists:
                yield from _files(layout.resolve(listed))


def _leads_out(table: str) -> bool:
    return expanded(table).is_absolute() or ".." in PurePosixPath(table).parts


def _inputs(params: Params, layout: Layout, stage: str) -> dict[str, _Input]:
    """{name: what a stage reads by it}."""
    if stage == FETCH_LLM:
        kind, _, path = params.llm.source.partition(":")
        files = sorted(_files(layout.resolve(path))) if kind == "path" else []
        return {params.llm.name: _Input(params.llm.model_dump(mode="json"), files)}
    of_domains = {name: domain.source for name, domain in (params.domains or {}).items()}
    sources = of_domains if stage == DOMAINS else params.sources
    files_of = local_files(sources, layout)
    return {name: _Input(source.model_dump(mode="json"), files_of.get(name, [])) for name, source in sources.items()}


def look(params: Params, layout: Layout, stage: str) -> dict[str, str]:
    """{source: digest of its files and of the params of all sources} of a stage's sources that are on this machine.

    With other params the stage runs anew even if its files are those of the note: DVC would bring back what it has of
    an earlier run with these params, whatever the files were then.
    """
    inputs = _inputs(params, layout, stage)
    said = {name: own.said for name, own in inputs.items()}
    return {name: value_digest([said, [list(each) for each in own.files]]) for name, own in inputs.items() if own.files}


def note(layout: Layout, stage: str, seen: Mapping[str, str]) -> None:
    """Keep what a stage saw in this run's sources before it read them."""
    path = _place(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, json_bytes(_noted(layout) | {stage: dict(seen)}))


def changed_sources(params: Params, layout: Layout) -> dict[str, list[str]]:
    """{stage: sources of this machine that it has not seen as they are}; a stage that has noted nothing saw nothing.

    Of a stage whose out is there without a note, such as one that was pulled, nothing counts as changed. What the
    project has noted, its workspaces need not see again: DVC's cache has it (`workspace.drop_runs`).
    """
    noted = _noted(layout)
    if layout.is_workspace:
        noted = _noted(Layout(layout.project, layout.project)) | noted
    outs = {DOWNLOAD: layout.raw, FETCH_LLM: layout.llm, DOMAINS: layout.domains}
    found = {}
    for stage in READ_SOURCES:
        if stage not in noted and outs[stage].is_dir():
            continue
        seen = noted.get(stage, {})
        if names := [name for name, state in look(params, layout, stage).items() if seen.get(name) != state]:
            found[stage] = names
    return found


def note_first(params: Params, layout: Layout, changed: Collection[str]) -> None:
    """Note the present state for stages without a note, so that later changes count; not of those that have `changed`.

    Their outs are there, or DVC brings back what the project has.
    """
    noted = _noted(layout)
    for stage in set(READ_SOURCES) - set(changed):
        if stage not in noted and (seen := look(params, layout, stage)):
            note(layout, stage, seen)


def _place(layout: Layout) -> Path:
    name = layout.root.name if layout.is_workspace else "project"
    return layout.state / "sources" / f"{name}.json"


def _noted(layout: Layout) -> Seen:
    try:
        found = json.loads(_place(layout).read_text("utf-8"))
        return {stage: seen for stage, seen in found.items() if isinstance(seen, dict)}
    except (OSError, ValueError, AttributeError):  # none, or damaged
        return {}


def _files(place: Path) -> Iterator[FileState]:
    yield from _states(place, (place, *place.rglob("*")) if place.is_dir() else (place,))


def _states(place: Path, paths: Iterable[Path]) -> Iterator[FileState]:
    for path in paths:
        try:
            if path.is_file():
                about = path.stat()
                name = path.relative_to(place).as_posix().encode("utf-8", "backslashreplace").decode()  # may be no text
                yield name, about.st_size, about.st_mtime_ns
        except OSError:
            continue  # it was removed meanwhile
