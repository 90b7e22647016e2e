"""Folders, tables and shards that params name and that are not there, and tables without the named columns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from flame_core.captions.captioner import KINDS
from flame_core.captions.table import MANIFEST
from flame_core.captions.tables.places import is_of_the_run, table_place
from flame_core.captions.tables.table_rows import require_columns
from flame_core.data.addresses.expected import count_rows
from flame_core.data.buckets.bucket import is_address, require_address
from flame_core.data.sources.listing import SOURCE
from flame_core.data.sources.table import NAMED_TABLES
from flame_core.errors import InputError, ParamsError
from flame_core.graph.links import PIPELINE, stages_of
from flame_core.graph.own_tables import unmade_tables
from flame_core.layout import Layout, outside_projects
from flame_core.names import did_you_mean, expanded
from flame_core.params import FolderSource, Params, UrlsSource, WebdatasetSource
from flame_core.params.urls import NAMELESS
from flame_core.params.validation import Fault
from flame_core.preflight.made_with import MadeWith

_LISTED = 1000  # files of a folder that are compared with a missing one


def source_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    """Missing data of sources and missing folders of models.

    A source that this run has downloaded with these params is not looked for: nothing reads it before they change.
    """
    made = MadeWith(params, layout)
    for name, source in params.sources.items():
        key = ("sources", name)
        if (layout.raw / name / SOURCE).is_file() and made.has_listed(name):
            continue
        match source:
            case FolderSource():
                yield from _folder_faults(source, layout, key)
            case UrlsSource():
                yield from _urls_faults(source, layout, key)
            case WebdatasetSource():
                yield from _webdataset_faults(source, layout, key)
    yield from _model_faults(params, layout, made)


def _folder_faults(source: FolderSource, layout: Layout, key: tuple[str, ...]) -> Iterator[Fault]:
    folder = layout.resolve(source.path)
    if not folder.is_dir():
        yield Fault((*key, "path"), _missing_folder(folder))
        return
    if source.table is None:
        return
    table = folder / expanded(source.table)
    if table.suffix.lower() not in NAMED_TABLES:
        kinds = ", ".join(NAMED_TABLES)
        yield Fault((*key, "table"), f"{table.name}: a table is {kinds}; unpack a compressed one first")
    elif not table.is_file():
        yield Fault((*key, "table"), f"{table} does not exist; `table` is relative to `path`{_nearest(table)}")


def _urls_faults(source: UrlsSource, layout: Layout, key: tuple[str, ...]) -> Iterator[Fault]:
    path = layout.resolve(source.path)
    try:
        rows = count_rows(path, source.needed_columns)
    except (InputError, OSError, ValueError) as error:
        yield Fault((*key, "path"), f"{error}{'' if path.exists() else _nearest(path)}")
        return
    if min(rows, source.max_samples or rows) > NAMELESS and source.contact is None:
        yield Fault(
            (*key, "contact"),
            f"{rows:,} addresses: write an e-mail address or a page, so that people whose servers are asked can reach "
            "you; it stands in the user agent",
        )
    for listed in map(layout.resolve, source.opt_out.lists):
        if not listed.is_file():
            yield Fault((*key, "opt_out", "lists"), f"{listed} does not exist{_nearest(listed)}")


def _webdataset_faults(source: WebdatasetSource, layout: Layout, key: tuple[str, ...]) -> Iterator[Fault]:
    if is_address(source.path):
        yield from _address_faults(source.path, key)
        return
    folder = layout.resolve(source.path)
    if not folder.is_dir():
        yield Fault((*key, "path"), _missing_folder(folder))
        return
    if next(outside_projects(folder, source.shards), None) is None:
        yield Fault((*key, "shards"), f"no file in {folder} matches {source.shards!r}; write a pattern such as *.tar")


def _address_faults(address: str, key: tuple[str, ...]) -> Iterator[Fault]:
    try:
        require_address(address)  # nobody is asked whether it is there
    except ParamsError as error:
        yield Fault((*key, "path"), str(error))


def _model_faults(params: Params, layout: Layout, made: MadeWith) -> Iterator[Fault]:
    models: dict[tuple[str, ...], str | None] = {}
    if not ((layout.captions / MANIFEST).is_file() and made.has_captions()):
        models = {("caption", kind, "model"): getattr(getattr(params.caption, kind), "model", None) for kind in KINDS}
        yield from _caption_table_faults(params, layout)
    if not ((layout.llm / params.llm.name).is_dir() and made.has_llm()):
        models["llm", "source"] = params.llm.source
    for key, source in models.items():
        kind, _, path = (source or "").partition(":")
        place = layout.resolve(path)
        if kind == "path" and not (place.is_dir() or (key[0] == "llm" and place.is_file())):
            yield Fault(key, _missing_folder(place))


def _caption_table_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    """Tables of captions that are not there or whose beginning cannot be read; those in `data/` are made by stages."""
    stages = stages_of(layout.project / PIPELINE)
    yield from (Fault(key, said) for key, said in unmade_tables(layout, params, stages))
    for kind, chosen in params.caption.tables:
        for _, path in chosen.tables:
            place = table_place(layout, path)
            if is_of_the_run(layout, place):
                continue
            try:
                require_columns(chosen, place)
            except InputError as error:
                yield Fault(("caption", kind, "path"), f"{error}{'' if os.path.lexists(place) else _nearest(place)}")


def _missing_folder(folder: Path) -> str:
    if folder.is_file():
        return f"{folder} is a file; name the folder that holds it"
    return f"{folder} is no folder; correct the path, which is relative to the project{_nearest(folder)}"


def _nearest(path: Path) -> str:
    """`; did you mean x?` if something of a similar name is there."""
    there = [each.name for each in islice(path.parent.iterdir(), _LISTED)] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, there)
    return f";{hint}" if hint else ""
