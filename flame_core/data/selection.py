"""Decisions about several pairs at once: duplicates, the split, and no validation data in training.

1. A pair's side depends only on the pair (`split.py`); a second good pair with the same key is dropped.
2. Pictures with equal bytes on the same side become one sample: the first key's, with the captions of all.
3. A training picture with the same bytes as a validation picture is dropped.
4. A training sample loses every caption, in any language, that a validation sample has in any language. If no caption
   is left in the language of training, the sample is dropped.
5. A training picture that looks like a validation picture is dropped (`near_duplicates.py`).
6. With `filters.near_duplicates`, a picture whose hash very many pairs of its side have is a placeholder ("image not
   found"), and all of them are dropped, before anything else; and of training pictures that look like each other one is
   kept, with the captions of all: the one with most captions, then with most pixels, then with the smallest key.

Training data never affect validation: adding pairs may remove training samples, but the validation split changes only
if some of the added pairs belong to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.json import ParseOptions, ReadOptions, read_json

from flame_core.data.captions_text import PRIMARY, same_text, text_id
from flame_core.data.ledger import NEAR_DUPLICATE, LedgerEntry, Outcome, absorbed_by
from flame_core.data.near_duplicates import Looks, common_hashes, near_duplicates, near_groups
from flame_core.data.perceptual import COLOURS
from flame_core.data.scan import LANGUAGE_CODE, TABLE, Scanned
from flame_core.data.shards import SPLITS, Split
from flame_core.data.split import side
from flame_core.params import IngestParams

_COLUMNS = [
    "key",
    "reason",
    "detail",
    "sha256",
    "hash",
    "colours",
    "split",
    "side",
    "primary_texts",
    "other_texts",
    "left_out",
    "width",
    "height",
]
Ids = NDArray[np.uint64]
NOT_TRAINED = "not_in_training_language"
PLACEHOLDER = "placeholder"  # the reason of a picture that stands for many
_AT_ONCE = 256  # scans that are read before their tables become one
_NOTHING = np.array([], np.uint64)
Note = Callable[[int, Outcome, str, str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """A scanned pair: the row `row` of the table of the scan number `scan`."""

    scan: int
    row: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """A sample to write: its pairs (the first gives everything except captions) and ids of captions to leave out."""

    key: str
    pairs: tuple[Place, ...]
    without: tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """The samples of each split sorted by key, what happened to all other pairs, and the samples' `Looks`."""

    samples: dict[Split, list[Chosen]]
    entries: list[LedgerEntry]
    looks: dict[Split, Looks]


class _Pairs:
    """The good pairs of all scans, column by column, in the order of sources and listings."""

    def __init__(self, scans: Sequence[Scanned], params: IngestParams, language: str) -> None:
        tables: list[pa.Table] = []
        rows: list[NDArray[np.int64]] = []
        trained: list[pa.Array] = []
        self.bad: list[LedgerEntry] = []
        numbers: list[NDArray[np.int64]] = []
        for start in range(0, len(scans), _AT_ONCE):
            read: list[pa.Table] = []
            for scan in scans[start : start + _AT_ONCE]:
                table = pq.ParquetFile(scan.folder / TABLE).read([*_COLUMNS, "meta"])
                trained.append(_texts_in(language, table))
                read.append(table.drop_columns(["meta"]))
            table = pa.concat_tables(read)
            good = table.column("reason").is_null().to_numpy()
            scan_numbers = np.repeat(np.arange(start, start + len(read)), [len(each) for each in read])
            bad = table.select(["key", "reason", "detail"]).filter(pa.array(~good)).to_pylist()
            self.bad += [
                LedgerEntry(scans[number].source, row["key"], "dropped", row["reason"], row["detail"])
                for number, row in zip(scan_numbers[~good], bad, strict=True)
            ]
            tables.append(table.drop_columns(["reason", "detail"]).filter(pa.array(good)).combine_chunks())
            numbers.append(scan_numbers[good])
            rows.append(np.concatenate([np.arange(len(each)) for each in read])[good])
        table = pa.concat_tables(tables)
        self.scan, self.row = np.concatenate(numbers), np.concatenate(rows)
        self.source = [scans[number].source for number in self.scan]
        self.key: list[str] = table.column("key").to_pylist()
        self.left_out: list[str | None] = table.column("left_out").to_pylist()
        self.picture = _numbered(table.column("sha256"))  # equal numbers: equal bytes
        width, height = (table.column(name).to_numpy().astype(np.int64) for name in ("width", "height"))
        self.pixels = width * height
        self.looks = Looks(table.column("hash").to_numpy(), _colours(table.column("colours")))
        fixed: list[Split | None] = table.column("split").to_pylist()
        sides = zip(fixed, table.column("side").to_pylist(), strict=True)
        fraction = params.sizes(sum(scan.pairs for scan in scans)).val_fraction
        self.side: list[Split] = [side(split, number, fraction) for split, number in sides]
        self._primary, self._other = (_Lists.of(table.column(name)) for name in ("primary_texts", "other_texts"))
        self._trained = _Lists.of(pa.chunked_array(trained))

    def texts(self, pair: int) -> Ids:
        """Ids of all captions of a pair."""
        return np.concatenate([self._primary[pair], self._other[pair]])

    def forbid(self, texts: Ids) -> None:
        """Record captions that must not be used in training."""
        for lists in (self._primary, self._other, self._trained):
            lists.forbid(texts)

    def forbidden(self, pair: int) -> Ids:
        """Ids of the pair's captions that must not be used in training."""
        return np.concatenate([self._primary.forbidden(pair), self._other.forbidden(pair)])

    def in_training_language(self, pair: int) -> int:
        """How many captions a pair has in the language of training."""
        return len(self._trained[pair])

    def trainable(self, pair: int) -> int:
        """How many of these may be used in training."""
        return len(self._trained[pair]) - len(self._trained.forbidden(pair))


def _texts_in(language: str, table: pa.Table) -> pa.Array:
    """Ids of the captions in a language, of each good pair of a scan: a list each."""
    good = table.filter(pc.field("reason").is_null())
    primary, others = (good.column(name).combine_chunks() for name in ("primary_texts", "other_texts"))
    if not len(good):
        return primary
    captions = _captions_in(language, good.column("meta"))
    if language == PRIMARY:
        return pc.call_function("if_else", [captions.is_valid(), primary, pa.scalar([], primary.type)])
    found = [
        first if own and not more else [text_id(same_text(text)) for text in own or []]
        for own, first, more in zip(captions.to_pylist(), primary.to_pylist(), others.to_pylist(), strict=True)
    ]
    return pa.array(found, primary.type)


def _captions_in(language: str, metas: pa.ChunkedArray) -> pa.Array:
    """The captions in a language, a list per text of JSON, or null if it has none; nothing else of it is kept."""
    lines = "\n".join(metas.to_pylist()).encode()  # JSON of one line each
    schema = pa.schema({"captions": pa.struct({language: pa.list_(pa.string())})})
    wanted = ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    read = read_json(pa.BufferReader(lines), ReadOptions(use_threads=False, block_size=len(lines) + 1), wanted)
    return read.column("captions").combine_chunks().field(language)


def _numbered(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """[N]: the number of each value among the different ones of a column."""
    chunks = column.cast(pa.large_string()).dictionary_encode().unify_dictionaries().chunks
    return np.concatenate([np.empty(0, np.int32), *(chunk.indices.to_numpy() for chunk in chunks)])


def _colours(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """[N, 192]: the miniatures in a column of bytes."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, COLOURS)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty((0, COLOURS), np.uint8), *parts])


class _Lists:
    """Lists of ids, one per pair."""

    def __init__(self, values: Ids, lengths: NDArray[np.int64]) -> None:
        self._values = values
        self._ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._forbidden = np.zeros(len(self._values), bool)

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Lists:
        """The lists in a column."""
        values, lengths = (pc.call_function(name, [column]) for name in ("list_flatten", "list_value_length"))
        return cls(values.to_numpy(), lengths.to_numpy())

    def forbid(self, texts: Ids) -> None:
        self._forbidden = np.isin(self._values, texts)

    def forbidden(self, row: int) -> Ids:
        part = slice(self._ends[row], self._ends[row + 1])
        return self._values[part][self._forbidden[part]]

    def __getitem__(self, row: int) -> Ids:
        return self._values[self._ends[row] : self._ends[row + 1]]


def select(scans: Sequence[Scanned], params: IngestParams, language: str) -> Selection:
    """Decide what happens to every scanned pair; `language` is that of training."""
    pairs = _Pairs(scans, params, language)
    entries = list(pairs.bad)

    def note(pair: int, outcome: Outcome, reason: str, detail: str) -> None:
        entries.append(LedgerEntry(pairs.source[pair], pairs.key[pair], outcome, reason, detail))

    def drop(members: Sequence[int], reason: str, detail: str) -> None:
        for pair in members:
            note(pair, "dropped", reason, detail)

    merged = _merge(pairs, note, _placeholders(pairs, params, note))
    val = merged["val"]
    pairs.forbid(np.concatenate([_NOTHING, *(pairs.texts(pair) for members in val.values() for pair in members)]))
    val_pictures = {int(pairs.picture[first]): first for first in val}
    train: dict[int, list[int]] = {}
    without: dict[int, tuple[int, ...]] = {}
    for first, members in merged["train"].items():
        twin = val_pictures.get(int(pairs.picture[first]))
        if twin is not None:
            drop(members, "duplicate_of_val", f"the same bytes as {pairs.key[twin]}")
            continue
        if not any(map(pairs.in_training_language, members)):
            drop(members, NOT_TRAINED, f"no caption in {language!r}, the language of training")
            continue
        if not any(map(pairs.trainable, members)):
            drop(members, "caption_of_val", "its captions stand on validation samples")
            continue
        without[first] = tuple(sorted({int(text) for pair in members for text in pairs.forbidden(pair)}))
        train[first] = members
    twins = _near_twins(pairs, list(train), list(val), params.near_duplicate_distance)
    for first, twin in twins.items():
        drop(train.pop(first), "near_duplicate_of_val", f"looks like {pairs.key[twin]}")
    if params.filters.near_duplicates is not None:
        train = _merge_near(pairs, train, without, params.filters.near_duplicates.distance, note)
    for first in train:
        if without[first]:
            detail = f"lost {len(without[first])} of its captions, which stand on validation samples"
            note(first, "changed", "caption_of_val", detail)
    for samples in (train, val):
        for first, members in samples.items():
            for pair in members[1:]:
                if pairs.picture[pair] != pairs.picture[first]:
                    continue  # a near-duplicate, which has its row
                detail = f"the same bytes as {pairs.key[first]}, which has its captions now"
                note(pair, "merged", "duplicate", detail)
            for pair in members:
                if told := pairs.left_out[pair]:
                    note(pair, "changed", LANGUAGE_CODE, told)
    selection = Selection({}, entries, {})
    sides: dict[Split, dict[int, list[int]]] = {"train": train, "val": val}
    for split, kept in sides.items():
        order = sorted(kept, key=pairs.key.__getitem__)
        selection.samples[split] = [
            Chosen(
                key=pairs.key[first],
                pairs=tuple(Place(int(pairs.scan[pair]), int(pairs.row[pair])) for pair in kept[first]),
                without=without.get(first, ()) if split == "train" else (),
            )
            for first in order
        ]
        selection.looks[split] = pairs.looks[np.array(order, np.int64)]
    return selection


def _merge(pairs: _Pairs, note: Note, left_out: set[int]) -> dict[Split, dict[int, list[int]]]:
    """{side: {first pair of a sample: its pairs}}; a repeated key is dropped, equal pictures are merged."""
    samples: dict[Split, dict[int, list[int]]] = {split: {} for split in SPLITS}
    keys: set[str] = set()
    pictures: dict[Split, dict[int, int]] = {split: {} for split in SPLITS}  # the first pair with each
    for pair, key in enumerate(pairs.key):
        if pair in left_out:
            continue
        if key in keys:
            note(pair, "dropped", "duplicate_key", "an earlier picture of the source has this key")
            continue
        keys.add(key)
        first = pictures[pairs.side[pair]].setdefault(int(pairs.picture[pair]), pair)
        samples[pairs.side[pair]].setdefault(first, []).append(pair)
    return samples


def _placeholders(pairs: _Pairs, params: IngestParams, note: Note) -> set[int]:
    """The pairs with a picture that stands for many; each side is counted by itself, so training never changes val."""
    rule = params.filters.near_duplicates
    found: set[int] = set()
    for split in SPLITS if rule is not None else ():
        assert rule is not None
        own = np.flatnonzero(np.array([side == split for side in pairs.side], bool))
        common = common_hashes(pairs.looks.hashes[own], rule.placeholder_over)
        found |= {int(pair) for pair in own[common]}
    for pair in sorted(found):
        note(pair, "dropped", PLACEHOLDER, "a picture that stands for many: its perceptual hash is too common")
    return found


def _merge_near(
    pairs: _Pairs, train: dict[int, list[int]], without: dict[int, tuple[int, ...]], distance: int, note: Note
) -> dict[int, list[int]]:
    """Training samples of which none looks like another; `without` of the kept ones grows."""
    firsts = list(train)
    groups: dict[int, list[int]] = {}
    for first, group in zip(firsts, near_groups(pairs.looks[np.array(firsts, np.int64)], distance), strict=True):
        groups.setdefault(int(group), []).append(first)
    kept: dict[int, list[int]] = {}
    for alike in groups.values():
        captions = {first: sum(len(pairs.texts(pair)) for pair in train[first]) for first in alike}
        best, *others = sorted(alike, key=lambda first: (-captions[first], -pairs.pixels[first], pairs.key[first]))
        kept[best] = [*train[best], *(pair for first in others for pair in train[first])]
        without[best] = tuple(sorted({text for first in alike for text in without[first]}))
        for pair in (pair for first in others for pair in train[first]):
            size = f", in a group of {len(alike):,}" if len(alike) > 2 else ""
            note(pair, "merged", NEAR_DUPLICATE, absorbed_by(pairs.key[best]) + size)
    return kept


def _near_twins(pairs: _Pairs, train: list[int], val: list[int], distance: int) -> dict[int, int]:
    """{training pair: validation pair that it looks like}."""
    train_looks, val_looks = (pairs.looks[np.array(some, np.int64)] for some in (train, val))
    found = near_duplicates(train_looks, val_looks, distance)
    return {train[i]: val[found[i]] for i in np.flatnonzero(found >= 0)}


def reasons(entries: Sequence[LedgerEntry]) -> dict[str, int]:
    """How many pairs, and files that should have been pairs, were dropped or merged, by reason."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if entry.outcome in ("dropped", "merged"):
            counts[entry.reason] += entry.count
    return dict(sorted(counts.items()))
