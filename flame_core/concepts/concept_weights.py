"""Weights of samples by the frequency of their concepts, as MetaCLIP balances (arXiv 2309.16671).

A concept of frequency f takes each of its samples with probability p = min(1, cap / f); a sample's weight is the
probability that at least one of its concepts takes it, 1 - prod (1 - p). A sample without any concept has `other`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pyroaring import BitMap

from flame_core.concepts.bitmaps import read_bitmaps, rows_of
from flame_core.concepts.counting import HITS, STAGE
from flame_core.data.sidecars import write_values
from flame_core.params.concepts import ConceptWeightParams, MatchMode
from flame_core.work import Unit, UnitRecord, WorkCache

NAME = "concept-weights"  # of the sidecar


def sample_weights(hits: Sequence[BitMap], rows: int, frequency: np.ndarray, cap: int, other: float) -> np.ndarray:
    """[rows] in float32, of the hits per concept [C] in one shard and their frequencies [C] in all."""
    missed, seen = np.ones(rows), np.zeros(rows, bool)
    for own, count in zip(hits, frequency.tolist(), strict=True):
        if own:
            at = rows_of(own)
            missed[at] *= 1 - min(1.0, cap / count)
            seen[at] = True
    return np.where(seen, 1 - missed, other).astype(np.float32)


def weight_units(
    work: Path,
    joined: Mapping[str, Unit],
    sizes: Mapping[str, int],
    frequency: np.ndarray,
    mode: MatchMode,
    params: ConceptWeightParams,
) -> dict[str, Unit]:
    """Units with the weights of each shard's samples."""
    cache, units = WorkCache(work, STAGE), {}
    for shard, unit in joined.items():

        def write(folder: Path, shard: str = shard, unit: Unit = unit) -> UnitRecord:
            hits = read_bitmaps(unit.file(HITS))[mode]
            write_values(folder, NAME, sample_weights(hits, sizes[shard], frequency, params.cap, params.other))
            return UnitRecord({"samples": sizes[shard]})

        inputs = {"step": "weights", "hits": unit.sha256[HITS], "rows": sizes[shard], "mode": mode}
        inputs |= {"frequency": frequency.tolist()}
        units[shard] = cache.get({**inputs, **params.model_dump(mode="json")}, write)
    return units
