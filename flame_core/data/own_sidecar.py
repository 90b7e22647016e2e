"""A sidecar of values that another program computed: one per training sample, named by its key, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.data.shards import INDEX, read_index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import bytes_sha256
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.work import UnitRecord, WorkCache


def store_by_key(
    layout: Layout, name: str, keys: Sequence[str], values: np.ndarray, origin: Mapping[str, Any], stage: str = ""
) -> None:
    """Make `data/sidecars/<name>`.

    Args:
        layout: the run; `Layout.find()` is that of the working directory.
        name: of the sidecar.
        keys: of samples, as in `data/shards/index.parquet`. Those that are not in the training split are left out.
        values: of these samples, [N, ...], in a type that `write_values` takes.
        origin: what the values follow from, as JSON: the model that made them, digests of files.
        stage: the stage of `dvc.yaml` that calls this (default: the name).

    Raises:
        InputError: a training sample has no value, a key stands twice, or keys and values differ in number.
        ComputationError: the type is wrong, or a value is not finite.
    """
    if len(keys) != len(values):
        raise InputError(f"{name}: {len(values):,} values for {len(keys):,} keys")
    row_of = {key: row for row, key in enumerate(keys)}
    if len(row_of) < len(keys):
        raise InputError(f"{name}: the key {Counter(keys).most_common(1)[0][0]} stands more than once")
    index = read_index(layout.shards, "train")
    if missing := [key for key in index.keys() if key not in row_of]:  # noqa: SIM118, an index iterates over rows
        raise InputError(
            f"{name}: {len(missing):,} of {len(index):,} training samples have no value, such as {missing[0]}; keys "
            f"are those of {layout.shards / INDEX}"
        )
    cache, units = WorkCache(layout.work, stage or name), {}
    for shard, rows in index.in_order().by_shard().items():
        own = np.ascontiguousarray(values[[row_of[key] for key in rows.keys()]])  # noqa: SIM118

        def write(folder: Path, own: np.ndarray = own) -> UnitRecord:
            write_values(folder, name, own)
            return UnitRecord({"samples": len(own)})

        inputs = {"name": name, "shape": own.shape, "dtype": own.dtype.name, "values": bytes_sha256(own.tobytes())}
        units[shard] = cache.get(inputs, write)
    gather_sidecar(layout.data / "sidecars" / name, layout.state, units, index, stage or name, origin)
