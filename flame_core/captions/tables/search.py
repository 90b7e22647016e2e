"""Finds the captions of a `captioner: table` or `column`: those that rows have for samples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.captions.tables.kept_rows import KeptRows
from flame_core.captions.tables.names import SampleNames
from flame_core.captions.tables.rows import TextRows, said_of
from flame_core.captions.tables.sorted_texts import SortedTexts
from flame_core.captions.tables.table_rows import TableRows
from flame_core.data.captions_text import clean_caption
from flame_core.data.shards import INDEX, read_index
from flame_core.data.sources.accounting import Problems
from flame_core.data.sources.listing_writer import plain
from flame_core.data.sources.record import RECORDS, texts_in
from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import ColumnCaptioner, FoundCaptioner, Source
from flame_core.verification import read_digests
from flame_core.work import UnitRecord, WorkCache

_TEXTS, _ABOUT = "texts.parquet", "about.json"
_ROWS = 4096  # that are looked up at once
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTexts:
    """The texts of a shard's samples: rows `start` to `stop` (not included) of a file, and a digest of them."""

    path: Path
    start: int
    stop: int
    sha256: str


@dataclass(frozen=True)
class FoundTexts:
    """What rows say of the samples.

    Attributes:
        shards: {shard: its texts}.
        files: {file of the rows: sha256}.
        counts: of texts, and of rows by what became of them.
    """

    shards: Mapping[str, ShardTexts]
    files: Mapping[str, str]
    counts: Mapping[str, int]


def find_texts(
    key: str, params: FoundCaptioner, sources: Mapping[str, Source], layout: Layout, sha256: Callable[[Path], str]
) -> FoundTexts:
    """The texts of all samples that have one.

    Args:
        key: of the captioner in params.
        params: of the captioner.
        sources: of the samples.
        layout: of the run.
        sha256: hashes a file.

    Raises:
        InputError: rows are missing or damaged or lack a column, or no row has a text for a sample.
    """
    try:
        rows = _opened(params, sources, layout, sha256)
        inputs = {"unit": "texts", "records": RECORDS, **rows.inputs, "index": read_digests(layout.shards)[INDEX]}
        unit = WorkCache(layout.work, "caption").get(inputs, _Search(rows, sources, layout).write)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    about = json.loads(unit.file(_ABOUT).read_bytes())
    if about["unreadable"]:
        log.warning("%s: rows that cannot be read: %s", key, about["unreadable"])
    shards = {name: ShardTexts(unit.file(_TEXTS), *each) for name, each in about["shards"].items()}
    return FoundTexts(shards, rows.sha256, unit.record.counts)


def _opened(
    params: FoundCaptioner, sources: Mapping[str, Source], layout: Layout, sha256: Callable[[Path], str]
) -> TextRows:
    if isinstance(params, ColumnCaptioner):
        return KeptRows(params, sources, layout)
    return TableRows(params, sources, layout, sha256)


@dataclass(frozen=True)
class _Search:
    rows: TextRows
    sources: Mapping[str, Source]
    layout: Layout

    def write(self, folder: Path) -> UnitRecord:
        """The texts in the order of the shards, and what else is known about them."""
        index = read_index(self.layout.shards).in_order()
        names = SampleNames(index, self.rows.match, self.sources, self.layout)
        problems, counts, first = Problems(), Counter[str](), ""
        with SortedTexts(folder, index) as texts:
            for source, rows in self.rows.read(folder, problems):
                while some := list(islice(rows, _ROWS)):
                    first = first or some[0][0]
                    counts["rows"] += len(some)
                    known = np.zeros(len(some), bool)
                    for places in names.places([name for name, _ in some], source):
                        known |= places >= 0
                        for row in np.flatnonzero(places >= 0).tolist():
                            counts.update(self._take(texts, int(places[row]), some[row][1]))
                    counts["unmatched rows"] += int(np.count_nonzero(~known))
            if not counts["texts"]:
                raise InputError(self.rows.nothing(index, counts, first, problems))
            shards = texts.write(folder / _TEXTS)
            counts["texts"] -= texts.repeated
            counts["samples with a text"], counts["duplicate texts"] = texts.samples, texts.repeated
        write_json(folder / _ABOUT, {"shards": shards, "unreadable": said_of(problems.rows())})
        counts["unreadable rows"] = sum(problem.count for problem in problems.rows())
        return UnitRecord({name: count for name, count in counts.items() if count})

    def _take(self, texts: SortedTexts, place: int, value: Any) -> list[str]:
        """Keep the texts of a row; returns what to count."""
        language = self.rows.language
        spoken = texts_in(value, language)
        own = [text for code, some in spoken.items() if _same(code, language) for text in some]
        cleaned = [each for text in own if (each := clean_caption(plain(text), self.rows.max_chars))[0]]
        for text, _ in cleaned:
            texts.add(place, text)
        cut = sum(cut for _, cut in cleaned)
        return ["texts"] * len(cleaned) + ["texts cut"] * cut if cleaned else ["rows without a text"]


def _same(code: str, other: str) -> bool:
    """Whether two codes are of one language: zh_CN and zh-cn."""
    return code.replace("_", "-").lower() == other.replace("_", "-").lower()
