"""Measures of a run as columns of sums and counts per picture: their estimates, intervals and outcomes.

A measure is a mean over queries, and every query belongs to a picture, so per picture a sum and a count say all that
a bootstrap needs. The headline measures are kept in that form (`outcomes.parquet`), so that `flame compare` can draw
the same pictures for two recipes and judge their difference picture by picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from flame_core.evaluation.bootstrap import Bootstrap, by_picture

OUTCOMES_SCHEMA = pa.schema(
    {
        "measure": pa.dictionary(pa.int32(), pa.string()),  # a key of metrics.json
        "picture": pa.int32(),  # row in the validation split
        "sum": pa.float32(),  # of the values of the picture's queries
        "queries": pa.int32(),
    }
)


class Estimates:
    """Named measures over the pictures of a split, and groups: plain means over some of the measures."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.groups: dict[str, list[str]] = {}
        self._hidden: set[str] = set()

    def add(self, name: str, values: np.ndarray, owners: np.ndarray, *, hidden: bool = False) -> None:
        """Add a measure: the values [Q] of its queries and the picture [Q] of each. A hidden one only serves groups."""
        self.sums[name], self.counts[name] = by_picture(values, owners, self.pictures)
        if hidden:
            self._hidden.add(name)

    def intervals(self, bootstrap: Bootstrap) -> dict[str, float]:
        """{name: estimate, name/low, name/high} of all measures and groups."""
        names = list(self.sums)
        sums = np.stack([self.sums[name] for name in names], axis=1)
        counts = np.stack([self.counts[name] for name in names], axis=1)
        with np.errstate(invalid="ignore"):  # a class of which no picture was measured
            values = sums.sum(axis=0) / counts.sum(axis=0)
        draws = bootstrap.means(sums, counts)
        column = {name: index for index, name in enumerate(names)}
        shown = {name: [name] for name in names if name not in self._hidden} | self.groups
        found: dict[str, float] = {}
        for name, members in shown.items():
            at = [column[member] for member in members]
            low, high = bootstrap.interval(mean_of_known(draws[:, at])[:, None])
            known = values[at][~np.isnan(values[at])]
            found[name] = float(known.mean()) if known.size else float("nan")
            found[f"{name}/low"], found[f"{name}/high"] = float(low[0]), float(high[0])
        return found

    def outcomes(self, names: Sequence[str]) -> pa.Table:
        """What each picture contributed to the named measures, as `OUTCOMES_SCHEMA`."""
        pictures = {name: np.nonzero(self.counts[name])[0] for name in names}
        numbers = np.repeat(np.arange(len(names), dtype=np.int32), [len(pictures[name]) for name in names])
        columns = [
            pa.DictionaryArray.from_arrays(numbers, pa.array(names, pa.string())),
            np.concatenate([pictures[name] for name in names]).astype(np.int32),
            np.concatenate([self.sums[name][pictures[name]] for name in names]).astype(np.float32),
            np.concatenate([self.counts[name][pictures[name]] for name in names]).astype(np.int32),
        ]
        return pa.table(columns, schema=OUTCOMES_SCHEMA)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """[S, C] -> [S]: the mean over the columns that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
