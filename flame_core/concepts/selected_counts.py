"""How often each concept occurs in the samples that a recipe selects, from the hits that `flame concepts` stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyroaring import BitMap

from flame_core.concepts.bitmaps import read_bitmaps
from flame_core.concepts.concept_out import Frequencies, hits_name, read_manifest
from flame_core.data.shards import Index
from flame_core.errors import InputError


def selected_counts(folder: Path, counted: Frequencies, side: str, index: Index, selected: Index) -> np.ndarray:
    """[C] selected samples with each concept on a side (text, image or both); -1 where no tagger can tell.

    Args:
        folder: `data/concepts`.
        counted: its counts of all samples.
        side: as in `Frequencies.by`.
        index: all rows of the training split.
        selected: those that count.

    Raises:
        InputError: the concepts were counted in other shards.
    """
    if read_manifest(folder)["index"] != index.digest():
        raise InputError(f"{folder}: counted in other shards; run `flame concepts` again")
    total = np.zeros(len(counted.concepts), np.int64)
    places = selected.table.column("row").to_numpy()
    for shard, own in selected.spans().items():
        chosen, sets = BitMap(places[own.start : own.stop]), read_bitmaps(folder / hits_name(shard))
        text, image = sets[counted.mode], sets.get("image", [])
        hits = {"text": text, "image": image, "both": [a & b for a, b in zip(text, image, strict=False)]}[side]
        total += np.array([len(each & chosen) for each in hits], np.int64)
    return np.where(counted.by(side) < 0, -1, total)
