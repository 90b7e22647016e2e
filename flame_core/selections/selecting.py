"""Selections of a section `select`: budgets, nested where they can be, and the files that recipes name.

Selections that differ only in their size are nested: they are made from the smallest to the largest, and no
cluster gives a larger one fewer samples than a smaller one (`budgets.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flame_core.errors import InputError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.params import SelectionParams
from flame_core.selections.budgets import allocate
from flame_core.selections.picking import Picked, hash_numbers, pick, ranks


@dataclass(frozen=True)
class Selected:
    """A selection by its name, and the samples that each cluster gives, [C]."""

    name: str
    params: SelectionParams
    budget: int
    picked: Picked
    counts: np.ndarray


def require_budgets(selections: Mapping[str, SelectionParams], samples: int) -> None:
    """Refuse budgets above the data.

    Raises:
        InputError: names the selection and how many samples there are.
    """
    for name, each in selections.items():
        if (budget := each.budget(samples)) > samples:
            raise InputError(
                f"select.selections.{name}: {budget:,} samples, and the training split has {samples:,}; lower it"
            )


def select_all(
    selections: Mapping[str, SelectionParams],
    keys: Sequence[str],
    groups: np.ndarray,
    clusters: int,
    allowed: Mapping[str, np.ndarray] | None = None,
) -> list[Selected]:
    """All selections, in the order of the params.

    Args:
        selections: by name.
        keys: of all samples, [N], all different.
        groups: the cluster of each, [N].
        clusters: how many there are, C.
        allowed: by selection, whether it may hold each sample, [N]; all samples if it is not named.

    Raises:
        InputError: a budget is above the data, or too small for `min_per_cluster`.
    """
    require_budgets(selections, len(keys))
    found: dict[str, Selected] = {}
    before: dict[str, np.ndarray] = {}
    for name, each in sorted(selections.items(), key=lambda item: item[1].budget(len(keys))):
        budget = each.budget(len(keys))
        open_ = np.arange(len(keys)) if allowed is None or name not in allowed else np.flatnonzero(allowed[name])
        if budget > len(open_):
            raise InputError(
                f"select.selections.{name}: {budget:,} samples, and its filter keeps {len(open_):,} of {len(keys):,}; "
                "lower the budget or raise filter.keep"
            )
        own_keys, own = [keys[place] for place in open_.tolist()], groups[open_]
        if each.mode == "random":
            one = np.zeros(len(own), np.int64)
            drawn = pick(one, ranks(one, hash_numbers(own_keys, f"random {each.seed}"), own_keys), np.array([budget]))
            picked = Picked(open_[drawn.places], own[drawn.places], drawn.ranks, drawn.weights)
            counts = np.bincount(picked.clusters, minlength=clusters)
        else:
            chain = each.model_copy(update={"share": None, "samples": None}).model_dump_json()
            counts = _counts(name, each, budget, np.bincount(own, minlength=clusters), before.get(chain))
            before[chain] = counts
            drawn = pick(own, ranks(own, hash_numbers(own_keys, each.seed), own_keys), counts)
            picked = Picked(open_[drawn.places], drawn.clusters, drawn.ranks, drawn.weights)
        found[name] = Selected(name, each, budget, picked, counts)
    return [found[name] for name in selections]


def _counts(
    name: str, chosen: SelectionParams, budget: int, sizes: np.ndarray, before: np.ndarray | None
) -> np.ndarray:
    """Samples per cluster, [C]; no fewer than `before`, the counts of a smaller selection of the same kind."""
    low = np.minimum(sizes, chosen.min_per_cluster)
    if low.sum() > budget:
        raise InputError(
            f"select.selections.{name}: min_per_cluster {chosen.min_per_cluster} takes {low.sum():,} samples, and the "
            f"budget is {budget:,}; lower one or raise the other"
        )
    return allocate(sizes, budget, chosen.mode, low if before is None else np.maximum(low, before))


def selection_file(selected: Selected, keys: Sequence[str]) -> bytes:
    """The parquet file of a selection, sorted by key: key, cluster, rank, weight."""
    picked = selected.picked
    names = np.array([keys[place] for place in picked.places.tolist()], dtype=object)
    order = np.argsort(names, kind="stable")
    columns = {
        "key": pa.array(names[order].tolist(), pa.string()),
        "cluster": pa.array(picked.clusters[order], pa.int32()),
        "rank": pa.array(picked.ranks[order], pa.int64()),
        "weight": pa.array(picked.weights[order], pa.float32()),
    }
    return parquet_bytes(pa.table(columns))
