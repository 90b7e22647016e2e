"""The quality gates of ingest: measured on the written shards, with thresholds from params."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flame_core.data.near_duplicates import Looks, near_duplicates
from flame_core.data.shards import SPLITS, Split
from flame_core.files.columns import is_among
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
    twins = near_duplicates(looks["train"], looks["val"], params.near_duplicate_distance)
    fraction = round(kept / max(listed, 1), 4)
    gates = params.gates
    return [
        _none("keys_unique", "no key stands twice in the shards", _repeated(rows)),
        _none("samples_decode", "every stored picture decodes to its size in the index", undecodable),
        Check(
            "kept_fraction",
            fraction >= gates.min_kept_fraction,
            "enough of the listed pairs are kept",
            value=fraction,
            threshold=gates.min_kept_fraction,
        ),
        *(
            Check(f"{split}_samples", len(rows[split]) >= least, f"{split} has enough samples", len(rows[split]), least)
            for split, least in zip(SPLITS, (gates.min_train_samples, gates.min_val_samples), strict=True)
        ),
        _language_check(rows, params),
        _none("pictures_disjoint", "no training picture has the bytes of a validation one", _shared(rows, "sha256")),
        _none("captions_disjoint", "no training caption stands in validation", _shared(rows, "texts")),
        _none(
            "looks_disjoint",
            "no training picture looks like a validation one",
            _keys_of(rows["train"], np.flatnonzero(twins >= 0)),
        ),
        _none("sources_readable", "every file of the sources can be read", damaged_files, blocking=False),
    ]


def _none(name: str, description: str, offending: Sequence[str], *, blocking: bool = True) -> Check:
    named = sorted(set(offending))
    return Check(name, not named, description, len(named), 0, blocking, named[:_NAMED])


def _repeated(rows: Mapping[Split, pa.Table]) -> list[str]:
    """Keys that more than one sample has, of whichever split."""
    parts = [chunk for split in SPLITS for chunk in rows[split].column("key").cast(pa.large_string()).chunks]
    counts = pa.chunked_array(parts, pa.large_string()).value_counts()
    several = pc.call_function("greater", [counts.field("counts"), pa.scalar(1, pa.int64())])
    return counts.field("values").filter(several).to_pylist()


def _shared(rows: Mapping[Split, pa.Table], column: str) -> list[str]:
    """Keys of training samples that share a value of `column` (plain, or lists) with a validation sample."""
    train, val = (rows[split].column(column) for split in ("train", "val"))
    if not pa.types.is_list(train.type):
        return _keys_of(rows["train"], np.flatnonzero(is_among(train, val).to_numpy()))
    numbers, values, others = (
        pc.call_function(function, [lists])
        for function, lists in (("list_parent_indices", train), ("list_flatten", train), ("list_flatten", val))
    )
    return _keys_of(rows["train"], np.unique(numbers.to_numpy()[is_among(values, others).to_numpy()]))


def _keys_of(table: pa.Table, numbers: NDArray[np.int64]) -> list[str]:
    return table.column("key").take(pa.array(numbers)).to_pylist()


def _language_check(rows: Mapping[Split, pa.Table], params: IngestParams) -> Check:
    """Checks that enough validation samples have the primary language of most training samples."""
    train, val = (_counted(rows[split].column("primary")) for split in ("train", "val"))
    main = min(train, key=lambda code: (-train[code], code), default="en")
    found = val.get(main, 0)
    return Check(
        "languages",
        found >= params.gates.min_val_samples,
        f"the main language of training ({main}) has enough validation samples",
        value=found,
        threshold=params.gates.min_val_samples,
    )


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs."""
    counts = column.value_counts()
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
