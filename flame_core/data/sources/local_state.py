"""Whether files of this machine's sources have changed since a stage read them.

DVC runs `download` and `domains` when their params change. What a folder or a table holds is no param, and must be
none: a clone that has pulled `data/raw` need not have the folder. So a stage notes here, outside of DVC, what it has
seen, by name, size and time of the files, and `flame run` runs it anew if that is no longer so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from flame_core.data.buckets.bucket import is_address
from flame_core.digest import json_bytes, value_digest
from flame_core.files.whole_files import put
from flame_core.layout import Layout
from flame_core.params import Params, Source

FileState = tuple[str, int, int]  # name, size, time of the last change
Seen = dict[str, dict[str, str]]  # {stage: {source: digest}}, see `look`
READ_SOURCES = DOWNLOAD, DOMAINS = "download", "domains"  # stages


def sources_of(params: Params) -> dict[str, dict[str, Source]]:
    """{stage: {name: source}} of all stages that read sources."""
    of_domains = {name: domain.source for name, domain in (params.domains or {}).items()}
    return {DOWNLOAD: dict(params.sources), **({DOMAINS: of_domains} if of_domains else {})}


def local_files(sources: Mapping[str, Source], layout: Layout) -> dict[str, list[FileState]]:
    """{source of this machine: its files, sorted}."""
    return {
        name: sorted(_files(layout.resolve(path)))
        for name, source in sources.items()
        if (path := getattr(source, "path", None)) is not None and not is_address(path)
    }


def look(params: Params, layout: Layout, stage: str) -> dict[str, str]:
    """{source: digest of its files and of the params of all sources} of a stage's sources that are on this machine.

    With other params the stage runs anew even if its files are those of the note: DVC would bring back what it has of
    an earlier run with these params, whatever the files were then.
    """
    sources = sources_of(params).get(stage, {})
    said = {name: source.model_dump(mode="json") for name, source in sources.items()}
    files = local_files(sources, layout)
    return {name: value_digest([said, [list(each) for each in own]]) for name, own in files.items() if own}


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
    outs = {DOWNLOAD: layout.raw, DOMAINS: layout.domains}
    found = {}
    for stage in sources_of(params):
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
    for stage in sources_of(params).keys() - set(changed):
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
    for path in (place, *place.rglob("*")) if place.is_dir() else (place,):
        try:
            if path.is_file():
                about = path.stat()
                name = path.relative_to(place).as_posix().encode("utf-8", "backslashreplace").decode()  # may be no text
                yield name, about.st_size, about.st_mtime_ns
        except OSError:
            continue  # it was removed meanwhile
