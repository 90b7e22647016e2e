"""What the data of a run hold, as far as they are there: counts, languages, and pairs that lack a half.

The samples of both splits are counted in `data/shards` if `ingest` has run with these params. Else the pairs come from
the list of a downloaded source, or from the folder or tars themselves if those are small enough to be read at once;
their split is that of `ingest`, which only a look at the pictures (duplicates, damage) can still change. Of a larger
folder only the pictures are counted, and the beginning of its table is read. Nothing is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.data.addresses.expected import TYPICAL, count_rows
from flame_core.data.buckets.bucket import is_address
from flame_core.data.captions_text import clean_captions
from flame_core.data.picture_kinds import is_picture
from flame_core.data.shards import INDEX, SPLITS, read_chosen, read_index
from flame_core.data.sources import RawPair, open_source
from flame_core.data.sources.folder import Folder
from flame_core.data.sources.listing import SOURCE, left_out, read_pairs, read_source
from flame_core.data.split import side, side_number
from flame_core.errors import FlameError, InputError
from flame_core.layout import Layout
from flame_core.names import is_language_code
from flame_core.params import DebianSource, FolderSource, HubSource, IngestParams, Params, UrlsSource
from flame_core.preflight.made_with import MadeWith
from flame_core.work import WorkCache

_MOST_BYTES, _MOST_FILES = 500_000_000, 20_000  # of a source that is read before it is downloaded
_MOST_COUNTED = 200_000  # files of a larger folder
_MOST_PAIRS = 50_000  # of a list that are looked at one by one


@dataclass
class SourceLook:
    """One source.

    Attributes:
        pairs: how many it lists; pairs without a picture or caption too.
        read: the pairs that have both, as (number that decides the split, split that the source fixes).
        languages: captions by language.
        lost: pairs with a caption and no picture, by what is said about each.
        silent: keys of pairs with a picture and no caption.
        damaged: (what is said about files, members of tars or rows that cannot be read, how many there are).
        complete: whether all pairs were looked at, and not only counted.
        listed: whether they were at least counted by the source, and not only pictures in a folder.
    """

    pairs: int = 0
    read: list[tuple[int, Any]] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    damaged: list[tuple[str, int]] = field(default_factory=list)
    complete: bool = True
    listed: bool = True


@dataclass(frozen=True)
class DataLook:
    """All data of a run.

    Attributes:
        pairs: how many pairs the sources list; None if unknown.
        train, val: samples of both splits; None if unknown.
        exact: whether `ingest` has counted them.
        languages: raw captions by language; None if unknown.
        held_out: whether those are the captions of the held-out split.
        sources: what was seen in each source that could be looked at.
        refused: {source: why `flame download` would refuse it}.
    """

    pairs: int | None
    train: int | None
    val: int | None
    exact: bool
    languages: Mapping[str, int] | None
    held_out: bool
    sources: Mapping[str, SourceLook]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """`about ` if ingest has not counted the samples yet."""
        return "" if self.exact else "about "

    @property
    def about_pairs(self) -> str:
        """`about ` if pairs were not listed, but only pictures counted."""
        return "" if all(source.complete or source.listed for source in self.sources.values()) else "about "


def look(params: Params, layout: Layout) -> DataLook:
    """Look at the data of these params in a project or workspace."""
    done = MadeWith(params, layout)
    sources: dict[str, SourceLook] = {}
    refused: dict[str, str] = {}
    for name in params.sources:
        try:
            found = _source(params, layout, name, done)
        except InputError as error:
            refused[name] = str(error)
        except (FlameError, OSError):  # of this machine, such as a full disk
            continue
        else:
            sources |= {} if found is None else {name: found}
    known = sources.keys() == params.sources.keys()
    pairs = sum(source.pairs for source in sources.values()) if known else None
    languages = _captions(layout.captions / "val") if done.ingest else None
    held_out = languages is not None
    if languages is None and known and all(source.complete for source in sources.values()):
        languages = sum((source.languages for source in sources.values()), Counter())
    counted = _index(layout) if done.ingest else None
    exact = counted is not None
    train, val = counted or (_estimate(params.ingest, sources.values(), pairs) if pairs else (None, None))
    return DataLook(pairs, train, val, exact, languages, held_out, sources, refused)


def place_of(params: Params, name: str) -> tuple[str, ...]:
    """The key of a source that names what is read."""
    source = params.sources[name]
    return "sources", name, "table" if isinstance(source, FolderSource) and source.table else "path"


def ingest_sizes_of(params: Params, layout: Layout, seen: DataLook) -> dict[str, float]:
    """{param of ingest that is `auto`: its value}, as chosen by ingest or as it would choose; {} if unknown."""
    automatic = params.ingest.automatic
    recorded = _recorded(layout) if seen.exact else {}
    if automatic and recorded.keys() >= set(automatic):
        return {name: recorded[name] for name in automatic}
    if seen.pairs is None:
        return {}
    sizes = params.ingest.sizes(seen.pairs)
    return {name: getattr(sizes, name) for name in automatic}


def _recorded(layout: Layout) -> dict[str, Any]:
    try:
        return read_chosen(layout.shards)
    except FlameError:
        return {}  # `flame ingest` makes it anew


def _source(params: Params, layout: Layout, name: str, done: MadeWith) -> SourceLook | None:
    """What one source holds; None if that is not known before it is downloaded.

    Raises:
        InputError: `flame download` would refuse it.
        FlameError, OSError: this machine lacks something that reading needs.
    """
    raw, source = layout.raw / name, params.sources[name]
    if (raw / SOURCE).is_file() and done.has_listed(name):
        with suppress(FlameError, OSError):  # of a damaged list, which `flame download` makes anew
            return _listed(raw, open_source(source, layout, name).pictures(raw), params.ingest)
        return None
    if isinstance(source, DebianSource | HubSource):
        return None
    if isinstance(source, UrlsSource):
        rows = count_rows(layout.resolve(source.path), source.needed_columns)
        rows = min(rows, source.max_samples or rows)
        return SourceLook(pairs=round(rows * TYPICAL), complete=False, listed=False)
    if is_address(source.path):
        return None
    folder, opened = layout.resolve(source.path), open_source(source, layout, name)
    tables = [folder / source.table] if isinstance(source, FolderSource) and source.table else []
    if _is_small(folder, tables):
        with TemporaryDirectory() as scratch:
            unit = opened.download(WorkCache(Path(scratch), "download"))
            return _listed(unit.folder, opened.pictures(unit.folder), params.ingest)
    if isinstance(opened, Folder):
        opened.require_table()
        return SourceLook(pairs=_picture_files(folder), complete=False, listed=False)
    return None


def _listed(raw: Path, pictures: Path, ingest: IngestParams) -> SourceLook:
    record = read_source(raw)
    problems, _ = left_out(record)
    damaged = [(f"{each.file}: {each.detail}", each.count) for each in problems]
    seen = SourceLook(pairs=int(record["pairs"]), damaged=damaged, complete=int(record["pairs"]) <= _MOST_PAIRS)
    if not seen.complete:
        return seen
    for pair in read_pairs(raw, pictures):
        _see(pair, ingest, seen)
    return seen


def _see(pair: RawPair, ingest: IngestParams, seen: SourceLook) -> None:
    coded = {code: texts for code, texts in pair.captions.items() if is_language_code(code)}
    captions, _ = clean_captions(coded, ingest.max_caption_chars)
    seen.languages.update({code: len(texts) for code, texts in captions.items()})
    if pair.image is None and captions:
        seen.lost.append(pair.missing or pair.unread or pair.key)
    elif not captions:
        seen.silent.append(pair.key)
    elif pair.split in (None, *SPLITS):
        seen.read.append((side_number(captions, pair.group), pair.split))


def _estimate(ingest: IngestParams, sources: Sequence[SourceLook] | Any, pairs: int) -> tuple[int, int]:
    """(training, held-out) samples, before duplicates are found."""
    fraction = ingest.sizes(pairs).val_fraction
    val = train = 0
    for source in sources:
        if source.complete:
            held_out = sum(side(split, number, fraction) == "val" for number, split in source.read)
            val, train = val + held_out, train + len(source.read) - held_out
        else:
            held_out = round(source.pairs * fraction)
            val, train = val + held_out, train + source.pairs - held_out
    return train, val


def _index(layout: Layout) -> tuple[int, int] | None:
    if not (layout.shards / INDEX).is_file():
        return None
    try:
        return len(read_index(layout.shards, "train")), len(read_index(layout.shards, "val"))
    except FlameError:
        return None  # `flame ingest` makes it anew


def _captions(folder: Path) -> Counter[str] | None:
    """Raw captions by language in a split's captions; None if there are none, or they are damaged."""
    found: Counter[str] = Counter()
    files = sorted(folder.glob("*.parquet"))
    for path in files:
        try:
            table = pq.read_table(path, columns=["kind", "language"])
        except (OSError, pa.ArrowException):
            return None  # `flame caption` makes it anew
        found.update(table.filter(pc.field("kind") == "raw").column("language").to_pylist())
    return found if files else None


def _is_small(folder: Path, more: Sequence[Path]) -> bool:
    size = count = 0
    for path in (*_files(folder), *more):
        try:
            size += path.stat().st_size
        except OSError:
            continue
        count += 1
        if size > _MOST_BYTES or count > _MOST_FILES:
            return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _picture_files(folder: Path) -> int:
    count = 0
    for seen, path in enumerate(_files(folder)):
        count += is_picture(path.name)
        if seen > _MOST_COUNTED:
            break
    return count
