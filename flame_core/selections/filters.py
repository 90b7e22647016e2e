"""Which samples a selection may hold: all, or those with the highest scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from flame_core import gates
from flame_core.data.shards import Index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError
from flame_core.selections.picking import hash_numbers


def read_scores(folder: Path, index: Index, rows: Index) -> np.ndarray:
    """The scores of the samples in some rows of the training split, [N] in float64; `index` has all rows.

    Raises:
        InputError: the sidecar is missing, of other shards, or holds no single numbers.
        GateError: a blocking check of it failed.
    """
    sidecar = Sidecar(folder)
    gates.require(folder)
    sidecar.require_aligned(index)
    if sidecar.manifest.shape:
        raise InputError(f"{folder} holds {list(sidecar.manifest.shape)} per sample, and a filter needs one number")
    return sidecar.read_rows(rows).double().numpy()


def kept(scores: np.ndarray, keep: float, keys: list[str]) -> np.ndarray:
    """Whether each sample is among the ceil(keep N) with the highest scores, [N]; equal ones by a hash of the key."""
    order = np.lexsort((hash_numbers(keys, "filter"), -scores))
    found = np.zeros(len(scores), dtype=bool)
    found[order[: math.ceil(keep * len(scores) - 1e-9)]] = True
    return found
