"""How similar a trained tower finds each picture and its raw captions: a sidecar of one number per training sample.

The number is <z_0, n(mean of the raw captions' stored vectors)>. A filter of selections (`select.selections.<name>.
filter`) keeps the samples with the highest: a switch of its own, beside clusters and budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flame_core.codes.patch_tokens import BATCH, TrainedTower
from flame_core.data.shards import Index, IndexRow, PictureReader
from flame_core.data.sidecars import write_values
from flame_core.errors import InputError
from flame_core.reporting import progress
from flame_core.text.store import Drawn, TrainStore, unit
from flame_core.work import Unit, UnitRecord, WorkCache

NAME = "similarity"


def raw_slots(store: TrainStore, where: str = "codes.similarity") -> list[int]:
    """Which of a sample's stored vectors are facets of raw captions; `where` is the param that needs them.

    Raises:
        InputError: none is.
    """
    slots = [slot for slot, name in enumerate(store.manifest["facets"]) if name.startswith("raw/")]
    if not slots:
        raise InputError(f"{where}: the embeddings hold no raw captions; add raw to text.train_kinds")
    return slots


def tower_similarities(
    tower: TrainedTower, store: TrainStore, slots: Sequence[int], reader: PictureReader, rows: Sequence[IndexRow]
) -> np.ndarray:
    """<z_0, n(mean of the stored vectors `slots`)> of each row, [n] in float64."""
    z = np.concatenate(
        [
            tower.vectors([reader.jpeg(row) for row in rows[start : start + BATCH]])
            for start in range(0, len(rows), BATCH)
        ]
    )
    t = store.read([Drawn(row.shard, row.row, list(slots)) for row in rows]).double().numpy()  # [n, K, D]
    return (unit(z.astype(np.float64)) * unit(t.mean(axis=1))).sum(axis=1)


def similarities(
    tower: TrainedTower,
    store: TrainStore,
    index: Index,
    shards: Path,
    sha256: Mapping[str, Mapping[str, str]],
    cache: WorkCache,
) -> dict[str, Unit]:
    """Units with the values of each shard's samples.

    Args:
        tower: trained with texts of the same LLM.
        store: of the training texts.
        index: all rows of the training split.
        shards: their folder.
        sha256: of the files `shards` and `texts` by name.
        cache: of the stage.
    """
    slots, reader = raw_slots(store), PictureReader(shards)
    rows, units = index.by_shard(), {}
    with progress("similarity", len(rows), "shards") as bar:
        for shard, own in rows.items():

            def write(folder: Path, own: Index = own) -> UnitRecord:
                values = tower_similarities(tower, store, slots, reader, list(own))
                write_values(folder, NAME, values.astype(np.float32))
                return UnitRecord({"samples": len(own)})

            texts = sha256["texts"][Path(shard).with_suffix(".safetensors").name]
            inputs = {
                "pictures": sha256["shards"][shard],
                "texts": texts,
                "center": sha256["texts"].get("center.safetensors"),
            }
            units[shard] = cache.get({"similarity": inputs, "tower": tower.identity, "slots": slots}, write)
            bar.advance()
    return units
