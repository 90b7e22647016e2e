"""The quality gates of ingest: measured on the written shards, with thresholds from params."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flame_core.data.near_duplicates import Looks, near_duplicates
from flame_core.data.shards import SPLITS, Split
from flame_core.gates import Check
from flame_core.params import IngestParams

_NAMED = 20  # failing keys listed per check


def ingest_checks(
    rows: Mapping[Split, pa.Table],
    looks: Mapping[Split, Looks],
    *,
    listed: int,
    kept: int,
    undecodable: Sequence[str],
    damaged_files: Sequence[str],
    params: IngestParams,
) -> list[Check]:
    """The checks of finished shards.

    `rows` has the columns of `build.SCHEMA`; `looks` has the same samples in the same order. `listed` counts the pairs
    of all sources, `kept` those that became samples or were merged into one.
    """
    keys: dict[Split, list[str]] = {split: rows[split].column("key").to_pylist() for split in SPLITS}
    times = Counter(key for split in SPLITS for key in keys[split])
    repeated = [key for key, number in times.items() if number > 1]
    twins = near_duplicates(looks["train"], looks["val"], params.near_duplicate_distance)
    fraction = round(kept / max(listed, 1), 4)
    gates = params.gates
    return [
        _none("keys_unique", "no key stands twice in the shards", repeated),
        _none("samples_decode", "every stored picture decodes to its size in the index", undecodable),
        Check(
            "kept_fraction",
            fraction >= gates.min_kept_fraction,
            "enough of the listed pairs are kept",
            value=fraction,
            threshold=gates.min_kept_fraction,
        ),
        *(
            Check(f"{split}_samples", len(keys[split]) >= least, f"{split} has enough samples", len(keys[split]), least)
            for split, least in zip(SPLITS, (gates.min_train_samples, gates.min_val_samples), strict=True)
        ),
        _language_check(rows, params),
        _none("pictures_disjoint", "no training picture has the bytes of a validation one", _shared(rows, "sha256")),
        _none("captions_disjoint", "no training caption stands in validation", _shared(rows, "texts")),
        _none(
            "looks_disjoint",
            "no training picture looks like a validation one",
            [keys["train"][i] for i in np.flatnonzero(twins >= 0)],
        ),
        _none("sources_readable", "every file of the sources can be read", damaged_files, blocking=False),
    ]


def _none(name: str, description: str, offending: Sequence[str], *, blocking: bool = True) -> Check:
    named = sorted(set(offending))
    return Check(name, not named, description, len(named), 0, blocking, named[:_NAMED])


def _shared(rows: Mapping[Split, pa.Table], column: str) -> list[str]:
    """Keys of training samples that share a value of `column` (plain, or lists) with a validation sample."""
    train, val = (_flat(rows[split], column) for split in ("train", "val"))
    keys = rows["train"].column("key").to_pylist()
    return [keys[i] for i in np.unique(train[0][np.isin(train[1], val[1])])]


def _flat(table: pa.Table, column: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(row numbers, values) of a column."""
    values: list[Any] = table.column(column).to_pylist()
    if not pa.types.is_list(table.schema.field(column).type):
        return np.arange(len(values)), np.array(values, dtype=np.str_)
    numbers = np.repeat(np.arange(len(values)), [len(some) for some in values])
    return numbers, np.array([value for some in values for value in some], dtype=np.uint64)


def _language_check(rows: Mapping[Split, pa.Table], params: IngestParams) -> Check:
    """Checks that enough validation samples have the primary language of most training samples."""
    languages = {split: Counter(rows[split].column("primary").to_pylist()) for split in SPLITS}
    main = min(languages["train"], key=lambda code: (-languages["train"][code], code), default="en")
    return Check(
        "languages",
        languages["val"][main] >= params.gates.min_val_samples,
        f"the main language of training ({main}) has enough validation samples",
        value=languages["val"][main],
        threshold=params.gates.min_val_samples,
    )
