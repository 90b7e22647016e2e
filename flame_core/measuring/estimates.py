"""Measures of a run as columns of sums and counts per picture: their estimates, intervals and outcomes.

A measure is a mean over queries, and every query belongs to a picture, so a sum and a count per picture are all that an
interval needs. The headline measures are stored in that form (`outcomes.parquet`), so that `flame compare` can compare
two recipes picture by picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from flame_core.measuring.intervals import Mean, by_picture, interval, mean_of, ratio

OUTCOMES_SCHEMA = pa.schema(
    {
        "measure": pa.dictionary(pa.int32(), pa.string()),  # a key of metrics.json
        "picture": pa.int32(),  # row in the validation split
        "sum": pa.float32(),  # over the values of the picture's queries
        "queries": pa.int32(),
    }
)


class Estimates:
    """Named measures over the pictures of a split, and groups: plain means over several measures."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.groups: dict[str, list[str]] = {}
        self.others: dict[str, Mean] = {}

    def add(self, name: str, values: np.ndarray, owners: np.ndarray) -> None:
        """Add a measure: the values [Q] of its queries, and the picture of each query [Q]."""
        self.sums[name], self.counts[name] = by_picture(values, owners, self.pictures)

    def intervals(self, confidence: float) -> dict[str, float]:
        """{name: estimate, name/low, name/high} of all measures, groups and other means."""
        means = {name: ratio(self.sums[name], self.counts[name]) for name in self.sums}
        means |= {name: mean_of([means[member] for member in members]) for name, members in self.groups.items()}
        found: dict[str, float] = {}
        for name, mean in (means | self.others).items():
            found[name] = mean.value
            found[f"{name}/low"], found[f"{name}/high"] = interval(mean, confidence)
        return found

    def outcomes(self, names: Sequence[str]) -> pa.Table:
        """Each picture's contribution to the named measures, as `OUTCOMES_SCHEMA`."""
        pictures = {name: np.nonzero(self.counts[name])[0] for name in names}
        numbers = np.repeat(np.arange(len(names), dtype=np.int32), [len(pictures[name]) for name in names])
        columns = [
            pa.DictionaryArray.from_arrays(numbers, pa.array(names, pa.string())),
            np.concatenate([pictures[name] for name in names]).astype(np.int32),
            np.concatenate([self.sums[name][pictures[name]] for name in names]).astype(np.float32),
            np.concatenate([self.counts[name][pictures[name]] for name in names]).astype(np.int32),
        ]
        return pa.table(columns, schema=OUTCOMES_SCHEMA)


def means_of(outcomes: pa.Table, pictures: int) -> dict[str, Mean]:
    """{measure: its mean} of a table with `OUTCOMES_SCHEMA`."""
    names = outcomes["measure"].unify_dictionaries().combine_chunks()
    measure = names.indices.to_numpy()
    rows, added, queries = (outcomes[name].to_numpy() for name in ("picture", "sum", "queries"))
    found = {}
    for number, name in enumerate(names.dictionary.to_pylist()):
        own = measure == number
        sums, counts = np.zeros(pictures), np.zeros(pictures)
        sums[rows[own]], counts[rows[own]] = added[own], queries[own]
        found[name] = ratio(sums, counts)
    return found
