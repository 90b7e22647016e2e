"""A threshold per concept from a few labelled pictures, since scores of rare and unseen concepts are lower than others.

A person says of some training pictures whether they show a concept, in a CSV file:

    key,concept,present
    tuxpaint/animals/dog,dog,1
    tuxpaint/animals/cat,dog,0

Each concept with both answers gets the threshold with the best F1 on its pictures: of all that lie halfway between two
scores, and the floor below which no score is stored; of equally good ones the lowest.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flame_core.concepts.concept_list import ConceptList
from flame_core.concepts.tags import TAGS, as_stored
from flame_core.data.shards import Index
from flame_core.errors import InputError
from flame_core.work import Unit

THRESHOLDS = "thresholds.json"  # in the out: {concept: threshold} of the calibrated ones
_COLUMNS = ["key", "concept", "present"]
_ANSWERS = {"0": False, "1": True}

Labels = dict[int, dict[str, bool]]  # {number of a concept: {key: whether the picture shows it}}


@dataclass(frozen=True)
class Calibrated:
    """What labelled pictures say.

    Attributes:
        thresholds: {number of a concept: threshold}.
        f1: {number of a concept: F1 on its labelled pictures}, of the same concepts.
        left: {number of a concept: why it has no threshold of its own}.
    """

    thresholds: dict[int, float]
    f1: dict[int, float]
    left: dict[int, str]


def read_labels(path: Path, concepts: ConceptList, index: Index) -> Labels:
    """The labels in a CSV file.

    Raises:
        InputError: the file is missing, or a line is not of this form; names the line.
    """
    numbers = {name: number for number, name in enumerate(concepts.names)}
    found: Labels = {}
    try:
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file of labels ({error}); correct concepts.images.labels") from None
    if not rows or rows[0] != _COLUMNS:
        raise InputError(f"{path}: its first line must be {','.join(_COLUMNS)}")
    keys = set(_among(index, {row[0] for row in rows[1:] if row}).keys())
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(_COLUMNS) or row[2] not in _ANSWERS:
            raise InputError(f"{path}, line {line}: write a key, a concept, and 1 or 0")
        key, name, present = row
        if name not in numbers:
            raise InputError(f"{path}, line {line}: there is no concept {name!r} among the {len(concepts)} of this run")
        if key not in keys:
            raise InputError(f"{path}, line {line}: {key!r} is no picture of the training split")
        own = found.setdefault(numbers[name], {})
        if key in own:
            raise InputError(f"{path}, line {line}: {key!r} is labelled for {name!r} a second time")
        own[key] = _ANSWERS[present]
    return found


def calibrate(labels: Labels, tags: Mapping[str, Unit], index: Index, covered: np.ndarray, floor: float) -> Calibrated:
    """Thresholds from labels and the stored scores of their pictures."""
    scores = _scores({key for own in labels.values() for key in own}, tags, index)
    thresholds: dict[int, float] = {}
    f1: dict[int, float] = {}
    left: dict[int, str] = {}
    for concept, own in sorted(labels.items()):
        present = np.array(list(own.values()))
        values = np.array([scores[key].get(concept, -np.inf) for key in own])
        if not covered[concept]:
            left[concept] = "the tagger cannot tell it"
        elif present.all() or not present.any():
            left[concept] = f"all its labels are {int(present[0])}"
        elif not (present & (values > floor)).any():
            left[concept] = "no picture that shows it has a score above the floor"
        else:
            thresholds[concept], f1[concept] = best_threshold(values, present, floor)
    return Calibrated(thresholds, f1, left)


def best_threshold(scores: np.ndarray, present: np.ndarray, floor: float) -> tuple[float, float]:
    """(threshold, F1) that is best if pictures with a score [n] above it are said to show the concept [n]."""
    stored = np.unique(scores[scores > floor])
    between = as_stored((stored[:-1] + stored[1:]) / 2)
    candidates = np.concatenate([[floor], np.where(between < stored[1:], between, stored[:-1])])
    said = scores > candidates[:, None]
    hits = (said & present).sum(axis=1)
    f1 = 2 * hits / (said.sum(axis=1) + present.sum())
    best = int(f1.argmax())
    return float(candidates[best]), float(f1[best])


def _scores(keys: set[str], tags: Mapping[str, Unit], index: Index) -> dict[str, dict[int, float]]:
    """{key: {number of a concept: stored score}}."""
    from safetensors.numpy import load_file

    found = {}
    for shard, own in _among(index, keys).by_shard().items():
        arrays = load_file(tags[shard].file(TAGS))
        for row in own:
            part = slice(arrays["ends"][row.row], arrays["ends"][row.row + 1])
            values = arrays["score"][part].astype(np.float64).tolist()
            found[row.key] = dict(zip(arrays["concept"][part].tolist(), values, strict=True))
    return found


def _among(index: Index, keys: set[str]) -> Index:
    """The rows of these keys."""
    options = pc.SetLookupOptions(value_set=pa.array(sorted(keys), pa.string()))
    chosen = pc.call_function("is_in", [index.table.column("key")], options)
    return Index(index.table.filter(chosen))
