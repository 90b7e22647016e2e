"""The facts about the shards that the data set's card and its Croissant metadata are both written from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flame_core.data.ledger import read_ledger
from flame_core.data.shards import INDEX, SPLITS, read_index, shard_names
from flame_core.data.sources.keys import safe_key
from flame_core.data.sources.listing import PAIRS, read_source
from flame_core.errors import InputError
from flame_core.files.columns import is_among
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.verification import read_digests

UNKNOWN = "not stated"


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of the shards.

    Attributes:
        samples: by split.
        shards: names by split.
        index_sha256: of `index.parquet`.
        sources: records of the sources.
        licences: pairs by licence.
        languages: captions by language.
        left_out: pairs and addresses by reason.
    """

    samples: dict[str, int]
    shards: dict[str, list[str]]
    index_sha256: str
    sources: dict[str, Any]
    licences: Counter[str]
    languages: Counter[str]
    left_out: Counter[str]

    @property
    def licence(self) -> str | None:
        """The one licence of all pairs; None if there are several, or one is not known."""
        known = set(self.licences)
        return known.pop() if len(known) == 1 and UNKNOWN not in known else None


def dataset_facts(params: Params, layout: Layout) -> DatasetFacts:
    """The facts about `data/shards`; licences and languages are those of the pairs that it has, also as merged ones.

    Raises:
        InputError: there are no shards, or a list of pairs cannot be read.
    """
    index = read_index(layout.shards)
    ledger = read_ledger(layout.shards)
    merged = pa.array([entry.key for entry in ledger if entry.outcome == "merged"], pa.string())
    wanted = pa.concat_arrays([*index.table.column("key").chunks, merged])
    licences, languages = Counter[str](), Counter[str]()
    for name in sorted(params.sources):
        table = _pairs(layout.raw / name / PAIRS)
        keys = pa.array([safe_key(f"{name}/{key}") for key in table.column("key").to_pylist()], pa.string())
        table = table.filter(is_among(keys, wanted))
        licences.update(licence or UNKNOWN for licence in table.column("licence").to_pylist())
        for captions in table.column("captions").to_pylist():
            languages.update({language: len(texts) for language, texts in captions})
    left_out = Counter[str]()
    for entry in ledger:
        if entry.outcome == "dropped":
            left_out[entry.reason] += entry.count
    return DatasetFacts(
        samples={split: index.table.filter(pc.field("split") == split).num_rows for split in SPLITS},
        shards={split: shard_names(layout.shards, split) for split in SPLITS},
        index_sha256=read_digests(layout.shards)[INDEX],
        sources={name: read_source(layout.raw / name) for name in sorted(params.sources)},
        licences=licences,
        languages=languages,
        left_out=left_out,
    )


def _pairs(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(["key", "licence", "captions"])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({error}): run `flame download`") from None
