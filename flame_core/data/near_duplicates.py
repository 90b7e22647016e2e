"""Finds pictures that look like a picture of another set: few different hash bits and nearly the same colours.

Scales to millions against tens of thousands. If two hashes differ in at most d bits, at least one of d + 1 disjoint
groups of bits is equal (the pigeonhole principle), so only pictures with an equal group are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

COLOUR_TOLERANCE = 8.0  # mean difference of the miniatures' values, of 255; chosen in docs/decisions/near-duplicates.md
_BLOCK = 1 << 21  # pairs of hashes compared at once
_COLOUR_BLOCK = 1 << 14  # pairs of miniatures compared at once


@dataclass(frozen=True)
class Looks:
    """Hashes [N] (uint64) and colour miniatures [N, 192] (uint8) of N pictures, from `perceptual.py`."""

    hashes: NDArray[np.uint64]
    colours: NDArray[np.uint8]

    def __getitem__(self, rows: NDArray[np.int64]) -> Looks:
        return Looks(self.hashes[rows], self.colours[rows])


def near_duplicates(pictures: Looks, others: Looks, distance: int) -> NDArray[np.int64]:
    """For each picture, the index of one of `others` that it nearly equals, or -1.

    `distance`: bits that may differ; if it is negative, nothing is a near-duplicate.
    """
    found = np.full(len(pictures.hashes), -1, np.int64)
    if distance < 0 or not len(others.hashes):
        return found
    for i, j in _alike(pictures.hashes, others.hashes, distance):
        open_ = found[i] < 0
        i, j = i[open_], j[open_]
        for start in range(0, len(i), _COLOUR_BLOCK):
            part = slice(start, start + _COLOUR_BLOCK)
            difference = pictures.colours[i[part]].astype(np.int16) - others.colours[j[part]]
            close = np.abs(difference).mean(axis=1) <= COLOUR_TOLERANCE
            found[i[part][close]] = j[part][close]
    return found


def near_groups(pictures: Looks, distance: int) -> NDArray[np.int64]:
    """For each picture, the number of its group: pictures that nearly equal each other, directly or through others.

    So two pictures of a large group may differ in more than `distance` bits. Pictures with a hash that is very common
    should be left out before, because all pairs of them are compared.
    """
    edges: list[NDArray[np.int64]] = []
    for i, j in _alike(pictures.hashes, pictures.hashes, distance):
        i, j = i[i < j], j[i < j]
        for start in range(0, len(i), _COLOUR_BLOCK):
            part = slice(start, start + _COLOUR_BLOCK)
            difference = pictures.colours[i[part]].astype(np.int16) - pictures.colours[j[part]]
            close = np.abs(difference).mean(axis=1) <= COLOUR_TOLERANCE
            edges.append(np.stack([i[part][close], j[part][close]]))
    ends = np.concatenate([np.empty((2, 0), np.int64), *edges], axis=1)
    shape = (len(pictures.hashes), len(pictures.hashes))
    graph = coo_array((np.ones(ends.shape[1], bool), (ends[0], ends[1])), shape)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def common_hashes(hashes: NDArray[np.uint64], most: int) -> NDArray[np.bool_]:
    """Whether each picture's hash occurs more than `most` times, as that of an "image not found" picture does."""
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return counts[inverse] > most


def _alike(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64], distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs (i, j) with at most `distance` different bits, in blocks; a pair may occur more than once."""
    groups = distance + 1
    for group in range(groups):
        mask = np.uint64(sum(1 << bit for bit in range(group, 64, groups)))
        order = np.argsort(others & mask, kind="stable")
        values = (others & mask)[order]
        first = np.searchsorted(values, hashes & mask, "left")
        counts = np.searchsorted(values, hashes & mask, "right") - first
        ends = np.cumsum(counts)
        start = 0
        while start < len(hashes):
            before = ends[start] - counts[start]
            stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, "right")))
            n = counts[start:stop]
            i = np.repeat(np.arange(start, stop), n)
            within = np.arange(len(i)) - np.repeat(np.cumsum(n) - n, n)
            j = order[np.repeat(first[start:stop], n) + within]
            near = np.bitwise_count(hashes[i] ^ others[j]) <= distance
            yield i[near], j[near]
            start = stop
