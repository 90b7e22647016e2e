"""Which samples a cluster gives: those that a seeded hash of their keys puts first.

The order of a cluster's samples depends only on the seed and their keys, not on shards, rows or processes. So equal
samples give the same selection however they are stored, and a larger selection holds a smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def hash_numbers(keys: Sequence[str], seed: int | str) -> np.ndarray:
    """64 uniform bits per key, [n] in uint64: the first 8 bytes of sha256("<seed> <key>")."""
    start = hashlib.sha256(f"{seed} ".encode())
    found = bytearray()
    for key in keys:
        own = start.copy()
        own.update(key.encode("utf-8", "surrogatepass"))
        found += own.digest()[:8]
    return np.frombuffer(bytes(found), ">u8").astype(np.uint64)


def ranks(clusters: np.ndarray, numbers: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """The place of each sample in its cluster, from 0, [n]: by its number, equal numbers by key.

    Args:
        clusters: of each sample, [n].
        numbers: as `hash_numbers` gives them, [n].
        keys: all different.
    """
    by_key = np.argsort(np.array(keys, dtype=object), kind="stable") if len(keys) else np.zeros(0, np.int64)
    order = by_key[np.lexsort((numbers[by_key], clusters[by_key]))]
    sizes = np.bincount(clusters, minlength=1)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found = np.empty(len(clusters), np.int64)
    found[order] = np.arange(len(clusters)) - starts[clusters[order]]
    return found


@dataclass(frozen=True)
class Picked:
    """A selection: places of its samples in the index, ascending, with cluster, rank and weight of each, [m].

    The rank is that in the cluster, or among all samples if the selection is random. The weight says how many samples
    of its cluster a selected one stands for, divided by the mean of that over the selection.
    """

    places: np.ndarray
    clusters: np.ndarray
    ranks: np.ndarray
    weights: np.ndarray


def pick(clusters: np.ndarray, order: np.ndarray, counts: np.ndarray) -> Picked:
    """The first `counts` [C] samples of each cluster.

    Args:
        clusters: of all samples, [N].
        order: rank of each sample in its cluster, [N].
        counts: how many samples each cluster gives.
    """
    places = np.flatnonzero(order < counts[clusters])
    own = clusters[places]
    stands_for = np.bincount(clusters, minlength=len(counts))[own] / counts[own]
    weights = stands_for / max(stands_for.mean(), 1e-12) if len(own) else stands_for
    return Picked(places, own, order[places], weights.astype(np.float32))
