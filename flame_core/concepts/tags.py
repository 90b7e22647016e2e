"""Scores of concepts in pictures, stored sparsely, and the thresholds that make hits of them.

A tagger gives each picture a score per concept. Scores above a floor are stored per shard in CSR form, in half
precision, so another threshold costs no second look at the pictures:

    ends     int64 [rows + 1]  where the scores of each row end
    concept  uint16, or uint32 for more than 65,536 concepts
    score    float16
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pyroaring import BitMap

from flame_core.concepts.bitmaps import bitmap_of
from flame_core.concepts.concept_list import ConceptList
from flame_core.data.shards import IndexRow
from flame_core.errors import ComputationError, InputError, ParamsError

TAGS = "tags.safetensors"  # of a unit


class Tagger(Protocol):
    """Says which concepts pictures show.

    Attributes:
        covered: [C] whether it can tell a concept at all.
        identity: what its scores depend on besides the pictures, as JSON.
    """

    covered: np.ndarray
    identity: dict[str, Any]

    def scores(self, rows: Sequence[IndexRow]) -> np.ndarray:
        """[n, C] in float32 of the pictures of index rows; what stands at concepts that it cannot tell is not read.

        Raises:
            InputError: a picture cannot be read; names it.
        """
        ...


def write_tags(folder: Path, blocks: Iterator[np.ndarray], covered: np.ndarray, floor: float) -> int:
    """Write the scores [n, C] of a shard's rows, in blocks, that are above `floor`; returns how many are stored.

    Raises:
        ComputationError: a score is not a number.
    """
    from safetensors.numpy import save

    kind = np.uint16 if len(covered) <= 2**16 else np.uint32
    counts: list[np.ndarray] = []
    concepts: list[np.ndarray] = []
    values: list[np.ndarray] = []
    row = 0
    for block in blocks:
        if np.isnan(block[:, covered]).any():
            raise ComputationError(
                f"the tagger gave no number for row {row + int(np.isnan(block).any(axis=1).argmax())}"
            )
        half = block.astype(np.float16)
        kept = (half > np.float16(floor)) & covered
        counts.append(kept.sum(axis=1))
        concepts.append(np.nonzero(kept)[1].astype(kind))
        values.append(half[kept])
        row += len(block)
    ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]), dtype=np.int64)
    arrays = {"ends": ends, "concept": np.concatenate([np.empty(0, kind), *concepts])}
    arrays["score"] = np.concatenate([np.empty(0, np.float16), *values])
    (folder / TAGS).write_bytes(save(arrays))
    return int(ends[-1])


def image_hits(path: Path, thresholds: np.ndarray) -> list[BitMap]:
    """Per concept, the rows whose score is above its threshold [C], both rounded as scores are stored."""
    from safetensors.numpy import load_file

    arrays = load_file(path)
    concept, score, ends = arrays["concept"].astype(np.int64), arrays["score"], arrays["ends"]
    rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    kept = score.astype(np.float64) > as_stored(thresholds)[concept]
    concept, rows = concept[kept], rows[kept]
    order = np.argsort(concept, kind="stable")
    edges = np.searchsorted(concept[order], np.arange(len(thresholds) + 1))
    return [bitmap_of(rows[order[a:b]]) for a, b in pairwise(edges)]


def as_stored(scores: np.ndarray) -> np.ndarray:
    """Numbers in float64 as rounded by the float16 of stored scores."""
    return scores.astype(np.float16).astype(np.float64)


def thresholds_of(
    concepts: ConceptList,
    threshold: float,
    floor: float,
    path: Path | None,
    calibrated: Mapping[int, float] | None = None,
) -> np.ndarray:
    """[C]: the threshold of each concept: of a JSON file {concept: threshold}, else calibrated, else the global one.

    Raises:
        InputError: the file is missing or holds something else; names the concept.
        ParamsError: a threshold is below the floor under which no score is stored.
    """
    found = np.full(len(concepts), float(threshold))
    for number, value in (calibrated or {}).items():
        found[number] = value
    if path is None:
        return found
    try:
        given = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a JSON file of thresholds ({error}); correct concepts.images.thresholds"
        ) from None
    if not isinstance(given, dict):
        raise InputError(f"{path}: thresholds are a mapping {{concept: threshold}}")
    numbers = {name: number for number, name in enumerate(concepts.names)}
    for name, value in given.items():
        if name not in numbers:
            raise InputError(f"{path}: there is no concept {name!r} among the {len(concepts)} of this run")
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise InputError(f"{path}: the threshold of {name!r} is {value!r}, not a number")
        if value < floor:
            raise ParamsError(
                f"{path}: the threshold {value:g} of {name!r} is below concepts.images.floor {floor:g}, and scores "
                "below that are not stored: lower the floor"
            )
        found[numbers[name]] = value
    return found
