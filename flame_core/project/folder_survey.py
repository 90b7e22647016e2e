"""Which source reads a folder of pictures: with captions beside them, or with a table, whatever it calls them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.data.picture_kinds import is_picture, suffix_of
from flame_core.data.shards import SPLITS
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.keys import stem_of
from flame_core.data.sources.manifest import LARGEST_TEXT, SIDECARS
from flame_core.data.sources.record import read_object
from flame_core.data.sources.splits import part_of
from flame_core.data.sources.table import NAMED_TABLES
from flame_core.data.sources.walk import Walk
from flame_core.data.text_files import TextError, decode_text
from flame_core.errors import InputError, ParamsError
from flame_core.files.regular_files import open_regular
from flame_core.names import expanded
from flame_core.params import FolderSource
from flame_core.project.columns import (
    Columns,
    choose_columns,
    documents_among,
    is_number,
    lists_addresses,
    nearly_named,
    tables_among,
    unread_fields,
)
from flame_core.project.table_heads import why_unread

_LOOKED_AT = 100  # records beside pictures
NAMED = 3
_LOOKED_INTO = 1 << 16  # bytes of a text beside a picture
_TRIED = 10  # tables, and folders of pictures
KEPT = "`keep_columns` keeps others, such as longer captions (`flame docs captioners`)"


@dataclass(frozen=True)
class Given:
    """What a person said about the data."""

    path: Path
    shards: bool = False
    table: Path | None = None
    image_column: str | None = None
    caption_column: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class _Fit:
    """A table, and the folder to which its names of pictures are relative."""

    base: Path
    columns: Columns


def folder_sources(folder: Path, given: Given) -> tuple[dict[tuple[str, ...], FolderSource], dict[str, str]]:
    """The source of a folder of pictures, or those of its parts by their names, and what was chosen.

    Raises:
        InputError: there are no pictures, or their captions are not clear; says what to do.
    """
    names = Walk(folder, False, Problems(), Unused()).files
    pictures = [name for name in names if is_picture(name)]
    pictured = set(map(stem_of, pictures))
    captioned = any(_captions_in(folder / name) for name in islice(_beside(names, pictured, SIDECARS), _LOOKED_AT))
    tables = [_given_table(given.table)] if given.table else tables_among(folder, names)
    documents = [] if given.table or captioned else documents_among(folder, names, pictured)
    objects = [path for path in documents if path.suffix.lower() == ".json"]
    groups = (tables, objects, [path for path in documents if path not in objects])
    found, unclear = _first(groups, lambda some: _of_folder(some, folder, pictures, given))
    fits: list[_Fit] = []
    if not found and not captioned:
        fits, unclear_inside = _fits(groups, folder, pictures, given)
        unclear = unclear or unclear_inside
    if len(fits) == 1 and not given.table and _all_below(fits[0].base, folder, pictures):
        found = fits[0]
    if found:
        return {(): _table_source(found, given)}, _told(found)
    if not given.table and (parts := _parts(fits)):
        return _sources_of(parts, folder, pictures, given)
    if unclear and not fits and not captioned:
        raise unclear
    if given.table or not pictures or ((tables or fits) and not captioned):
        raise InputError(_why_none(folder, names, pictures, tables, fits, given))
    if near := nearly_named(objects, pictures, files_only=True):
        raise InputError(f"{near}: names must be relative to {folder}, with their suffix")
    return {(): FolderSource(kind="folder", path=str(folder), language=given.language or "en")}, _told_beside(
        folder, names, pictured
    )


def _why_none(
    folder: Path,
    names: Sequence[str],
    pictures: Sequence[str],
    tables: Sequence[Path],
    fits: Sequence[_Fit],
    given: Given,
) -> str:
    """Why a folder has no pictures, or none that a table names, and what to do."""
    if (given.table or not pictures) and not fits and (listing := lists_addresses(tables)):
        return (
            f"{listing} lists addresses, and `flame init` looks at pictures of this machine: make a project with "
            "--demo, then replace its sources in params.yaml by one of `kind: urls` (`flame docs sources`)"
        )
    if given.table:
        if why := why_unread(tables[0], given.caption_column):
            return f"--table: {tables[0]} cannot be read: {why}"
        such = f", such as {', '.join(pictures[:NAMED])}" if pictures else ", which holds none: --images names another"
        return f"no row of {given.table} names a picture of {folder}{such}{_what_to_do(fits, tables, folder, pictures)}"
    if not pictures:
        if any(name.endswith(".tar") for name in names):
            return f"{folder} holds tars and no pictures: give it with --shards instead of --images"
        return f"{folder} holds no pictures (.jpg, .png, .webp and the like)"
    some = [_shown(path, folder) for path in (tables or [fit.columns.table for fit in fits])]
    return (
        f"no row of {', '.join(some[:NAMED])} names a picture of {folder}, which holds "
        f"{', '.join(pictures[:NAMED])}{'' if fits else ': a column must hold those names'}"
        f"{_what_to_do(fits, tables, folder, pictures)}"
    )


def _told_beside(folder: Path, names: Sequence[str], pictured: Collection[str]) -> dict[str, str]:
    """What files beside pictures hold, for people."""
    sidecars = {".txt": 0, ".json": 0, **Counter(suffix_of(name) for name in names if suffix_of(name) in SIDECARS)}
    counted = ", ".join(f"{count:,} {suffix}" for suffix, count in sidecars.items())
    told = {"captions": f"beside the pictures ({counted})"}
    if unread := unread_fields(list(_records(folder, names, pictured)), "captions"):
        told["fields not read"] = f"{quoted(unread)}; {KEPT}"
    return told


def _first(
    groups: Sequence[Sequence[Path]], choose: Callable[[Sequence[Path]], _Fit | None]
) -> tuple[_Fit | None, InputError | None]:
    """The choice among tables, documents or texts, or why none of those that name pictures has their captions."""
    unclear: InputError | None = None
    for some in groups:
        try:
            if some and (found := choose(some)):
                return found, None
        except InputError as error:
            if some is not groups[-1]:  # texts may be lists of a split's pictures, licences and much else
                unclear = unclear or error
    return None, unclear


def _beside(names: Sequence[str], pictured: Collection[str], suffixes: Collection[str]) -> Iterator[str]:
    return (name for name in names if suffix_of(name) in suffixes and stem_of(name) in pictured)


def _captions_in(path: Path) -> bool:
    """Whether a file beside a picture may hold captions: not such as have only numbers, as of boxes of objects."""
    with suppress(OSError, TextError), open_regular(path) as file:
        if path.suffix.lower() == ".json":
            return not {"caption", "captions"}.isdisjoint(read_object(file.read(LARGEST_TEXT)))
        return not all(map(is_number, decode_text(file.read(_LOOKED_INTO), "latin-1").split()))
    return True


def _of_folder(tables: Sequence[Path], folder: Path, pictures: Sequence[str], given: Given) -> _Fit | None:
    """The table whose names are relative to the folder, or begin with the folder's own."""
    if chosen := _columns(tables, folder, pictures, given):
        return _Fit(folder, chosen)
    for table in tables:
        if folder.is_relative_to(table.parent) and table.parent != folder:
            above = folder.relative_to(table.parent).as_posix()
            if chosen := _columns([table], table.parent, [f"{above}/{name}" for name in pictures], given):
                return _Fit(table.parent, chosen)
    return None


def _fits(
    groups: Sequence[Sequence[Path]], folder: Path, pictures: Sequence[str], given: Given
) -> tuple[list[_Fit], InputError | None]:
    """The tables whose names are relative to a folder inside: their own, as Hugging Face's are, or one of pictures."""
    found: dict[Path, _Fit] = {}
    unclear: InputError | None = None
    owners = dict.fromkeys(table.parent for some in groups for table in some[:_TRIED])
    folders = Counter(PurePosixPath(name).parent.as_posix() for name in pictures).most_common(_TRIED)
    for place in (*owners, *(folder / name for name, _ in folders)):
        if place == folder or place in found or not place.is_relative_to(folder):
            continue
        above = f"{place.relative_to(folder).as_posix()}/"
        if not (named := [name.removeprefix(above) for name in pictures if name.startswith(above)]):
            continue

        def choose(some: Sequence[Path], place: Path = place, named: Sequence[str] = named) -> _Fit | None:
            with suppress(ParamsError):  # it lacks a column that a person named
                if chosen := _columns(some, place, named, given):
                    return _Fit(place, chosen)
            return None

        own = [[table for table in some if table.parent == place] for some in groups]
        free = [[table for table in some if table.parent not in found] for some in groups]
        fit, why = _first(own if place in owners else free, choose)
        unclear = unclear or why
        found |= {place: fit} if fit else {}
    return list(found.values()), unclear


def _parts(fits: Sequence[_Fit]) -> list[tuple[_Fit, str]]:
    """The tables with the splits that the names of their folders say (train2017), if there is a part for training."""
    words = [re.match(r"[^\W\d_]*", fit.base.name) for fit in fits]
    splits = [part_of(word[0]) if word else None for word in words]
    known = None not in splits
    return list(zip(fits, map(str, splits), strict=True)) if len(fits) > 1 and known and "train" in splits else []


def _sources_of(
    parts: Sequence[tuple[_Fit, str]], folder: Path, pictures: Sequence[str], given: Given
) -> tuple[dict[tuple[str, ...], FolderSource], dict[str, str]]:
    chosen = {(fit.base.name,): (fit, split) for fit, split in parts if split in SPLITS}
    fixed = "val" in (split for _, split in chosen.values())  # else a share of the training part is held out
    sources = {
        name: _table_source(fit, given).model_copy(update={"split": split if fixed else None})
        for name, (fit, split) in chosen.items()
    }
    told = {
        f"{fit.base.name} ({split})" if what == "captions" else f"{fit.base.name}: {what}": said
        for fit, split in chosen.values()
        for what, said in _told(fit).items()
    }
    bases = tuple(f"{fit.base.relative_to(folder).as_posix()}/" for fit, _ in chosen.values())
    if others := [name for name in pictures if not name.startswith(bases)]:
        told["pictures elsewhere, left out"] = f"{len(others):,}: {', '.join(others[:NAMED])}"
    return sources, told


def _columns(tables: Sequence[Path], folder: Path, pictures: Sequence[str], given: Given) -> Columns | None:
    return choose_columns(tables, folder, pictures, given.image_column, given.caption_column) if tables else None


def _all_below(place: Path, folder: Path, pictures: Sequence[str]) -> bool:
    above = f"{place.relative_to(folder).as_posix()}/"
    return all(name.startswith(above) for name in pictures)


def _what_to_do(fits: Sequence[_Fit], tables: Sequence[Path], folder: Path, pictures: Sequence[str]) -> str:
    """What to do about tables that name no picture of the folder: name another folder, or correct the names."""
    if not fits:
        near = nearly_named(tables[:_TRIED], pictures)
        return f". {near}: names must be relative to the folder, with their suffix" if near else ""
    command = f"--images {shlex.quote(str(fits[0].base))} --table {shlex.quote(str(fits[0].columns.table))}"
    told = [f"{_shown(fit.columns.table, folder)} fits the pictures below {fit.base}" for fit in fits[:NAMED]]
    if len(fits) == 1:
        return f". {told[0]}: give it with {command}"
    return (
        f". {', '.join(told)}. Make the project with one of them ({command}); the others become sources of their own "
        "in params.yaml, with `split: train` or `split: val`"
    )


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _records(folder: Path, names: Sequence[str], pictured: Collection[str]) -> Iterator[dict[str, Any]]:
    """The first of the records beside pictures, without their captions."""
    for name in islice(_beside(names, pictured, (".json",)), _LOOKED_AT):
        with suppress(OSError, TextError), open_regular(folder / name) as file:
            yield {field: value for field, value in read_object(file.read()).items() if field != "caption"}


def _given_table(table: Path) -> Path:
    """The table that a person named.

    Raises:
        InputError: it is none, or not there.
    """
    path = expanded(table).resolve()
    if not path.is_file():
        raise InputError(f"--table: {path} {'is no file' if path.exists() else 'does not exist'}")
    if path.suffix.lower() not in NAMED_TABLES:
        kinds = ", ".join(NAMED_TABLES)
        raise InputError(
            f"--table: {path} is none of {kinds}: rename it if it holds rows of such a kind, else save it as .csv with "
            "the columns image and caption"
        )
    return path


def _table_source(fit: _Fit, given: Given) -> FolderSource:
    chosen = fit.columns
    inside = chosen.table.is_relative_to(fit.base)
    return FolderSource(
        kind="folder",
        path=str(fit.base),
        table=chosen.table.relative_to(fit.base).as_posix() if inside else str(chosen.table),
        encoding=chosen.encoding,
        delimiter=chosen.delimiter if chosen.headless else None,
        columns=list(chosen.headless) or None,
        image_column=chosen.image,
        caption_column=chosen.caption,
        language=given.language or "en",
    )


def _told(fit: _Fit) -> dict[str, str]:
    """What was chosen, for people."""
    chosen = fit.columns
    told = {
        "captions": f"column {chosen.caption!r} of {chosen.table.name}; its column {chosen.image!r} names the pictures"
    }
    if chosen.others:
        others = quoted([path.name for path in chosen.others])
        told["other tables"] = f"{others} also have captions of these pictures, and are not read: --table chooses one"
    if chosen.encoding != "utf-8":
        told["encoding"] = f"{chosen.encoding}, since {chosen.table.name} is not UTF-8" + (
            f"; but {chosen.mixed:,} of its first lines are, and their letters come out wrong: write the whole file "
            "in UTF-8"
            if chosen.mixed
            else ""
        )
    if chosen.unread:
        told["columns not read"] = (
            f"{quoted(chosen.unread)}; captions of several languages stand in one column, a row per caption and its "
            f"code in a column `language`; {KEPT}"
        )
    return told


def quoted(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:NAMED]))}{', ...' if len(names) > NAMED else ''}"
