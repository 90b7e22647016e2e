"""Retrieval between pictures and texts: recall@k, median rank and chance, both directions.

Which texts are right for which pictures is a bipartite graph (`Pairing`): a picture may have several texts, and
pictures that share a text are all right answers to it. Equal texts are one gallery entry, so they never occupy
several ranks, and one query, so they never count twice. A query is a hit at k when any right answer is among the
first k.

Ties are resolved by expectation: candidates with equal scores are taken to stand in random order, and a hit is the
probability that a right answer falls within the first k. A model that gives every candidate the same score
therefore gets exactly chance, whatever the order of the gallery. Scores are made in blocks of queries, so a gallery
of 50,000 against 50,000 never stands in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flame_core.errors import ComputationError

Direction = Literal["image_to_text", "text_to_image"]
DIRECTIONS: tuple[Direction, ...] = ("image_to_text", "text_to_image")
_BLOCK_SCORES = 8_000_000  # scores that are held at once


@dataclass(frozen=True)
class Pairing:
    """Pictures and texts that belong together.

    Attributes:
        pictures: [P] rows of the split, ascending; those with at least one text.
        texts: T texts, no two equal (`captions_text.same_text`).
        edges: [E, 2] distinct pairs (index into `pictures`, index into `texts`), sorted.
    """

    pictures: np.ndarray
    texts: list[str]
    edges: np.ndarray

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], texts: list[str]) -> Pairing:
        """Pair pictures with texts: `pairs` of (row of a picture in the split, index into `texts`), in any order."""
        edges = np.array(sorted(set(pairs)), dtype=np.int64).reshape(-1, 2)
        pictures, compact = np.unique(edges[:, 0], return_inverse=True)
        return cls(pictures, texts, np.stack([compact, edges[:, 1]], axis=1))

    def towards(self, direction: Direction) -> np.ndarray:
        """[E, 2] (query, right answer), sorted by query."""
        edges = self.edges if direction == "image_to_text" else self.edges[:, ::-1]
        return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


@dataclass(frozen=True)
class Standing:
    """Where the best right answer of each of Q queries stands.

    Attributes:
        ahead: [Q] candidates with a strictly better score (none of them is right).
        tied: [Q] candidates with exactly its score, itself included.
        right: [Q] right answers among the tied.
    """

    ahead: np.ndarray
    tied: np.ndarray
    right: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """[Q] probability that a right answer is among the first k, over random orders of ties."""
        return some_of(self.tied, self.right, np.maximum(k - self.ahead, 0))

    def ranks(self) -> np.ndarray:
        """[Q] expected rank of the first right answer, 1 is best."""
        return self.ahead + (self.tied + 1) / (self.right + 1)


@dataclass(frozen=True)
class Retrieval:
    """One direction over one pairing, measured.

    Attributes:
        standing: of each of Q queries.
        answers: [Q] number of right answers of each query.
        gallery: number of candidates.
        pictures: [Q] row in the split of the picture that the query belongs to (the first one, of a text with
            several); the unit that the bootstrap draws.
    """

    standing: Standing
    answers: np.ndarray
    gallery: int
    pictures: np.ndarray

    def recall(self, k: int) -> float:
        """Mean of `Standing.hits` over the queries."""
        return float(self.standing.hits(k).mean())

    def median_rank(self) -> float:
        return float(np.median(self.standing.ranks()))

    def chance(self, k: int) -> float:
        """Recall@k of a ranking in random order, exactly: hypergeometric for each query, mean over the queries."""
        return float(some_of(np.full_like(self.answers, self.gallery), self.answers, np.int64(k)).mean())


def some_of(population: np.ndarray, right: np.ndarray, drawn: np.ndarray | np.integer) -> np.ndarray:
    """Probability that at least one of `right` is among `drawn` of `population`, without replacement (elementwise)."""
    population, right, drawn = np.broadcast_arrays(population, right, drawn)
    missed = np.ones(population.shape)
    for i in range(int(drawn.max(initial=0))):
        left = np.maximum(population - i, 1)
        missed = np.where(i < drawn, missed * np.maximum(population - right - i, 0) / left, missed)
    return 1.0 - missed


def stand(queries: np.ndarray, gallery: np.ndarray, edges: np.ndarray) -> Standing:
    """Rank the gallery for each query by the inner product.

    Args:
        queries: [Q, D].
        gallery: [G, D].
        edges: [E, 2] (query, right answer), sorted by query; every query has at least one.

    Raises:
        ComputationError: a score is not finite.
    """
    count = len(queries)
    starts = np.searchsorted(edges[:, 0], np.arange(count + 1))
    if np.any(np.diff(starts) == 0):
        raise ValueError("a query without a right answer cannot be ranked")
    ahead, tied, right = (np.empty(count, dtype=np.int64) for _ in range(3))
    block = max(1, _BLOCK_SCORES // max(1, len(gallery)))
    for first in range(0, count, block):
        last = min(first + block, count)
        scores = queries[first:last] @ gallery.T  # [B, G]
        if not np.isfinite(scores).all():
            raise ComputationError("a similarity is not finite: the model's weights or the embeddings are broken")
        mine = edges[starts[first] : starts[last]]
        offsets = starts[first:last] - starts[first]
        answers = scores[mine[:, 0] - first, mine[:, 1]]
        best = np.maximum.reduceat(answers, offsets)
        ahead[first:last] = (scores > best[:, None]).sum(axis=1)
        tied[first:last] = (scores == best[:, None]).sum(axis=1)
        right[first:last] = np.add.reduceat((answers == best[mine[:, 0] - first]).astype(np.int64), offsets)
    return Standing(ahead, tied, right)


def retrieve(z: np.ndarray, t: np.ndarray, pairing: Pairing, direction: Direction) -> Retrieval:
    """Measure one direction.

    Args:
        z: [N, D] picture embeddings of the whole split.
        t: [T, D] embeddings of `pairing.texts`.
        pairing: which of them belong together.
        direction: what is the query and what the gallery.
    """
    edges = pairing.towards(direction)
    pictures = z[pairing.pictures]
    queries, gallery = (pictures, t) if direction == "image_to_text" else (t, pictures)
    first = np.searchsorted(edges[:, 0], np.arange(len(queries)))
    owners = np.arange(len(queries)) if direction == "image_to_text" else edges[first, 1]
    return Retrieval(
        standing=stand(queries, gallery, edges),
        answers=np.bincount(edges[:, 0], minlength=len(queries)),
        gallery=len(gallery),
        pictures=pairing.pictures[owners],
    )


def both_ways(z: np.ndarray, t: np.ndarray, pairing: Pairing) -> dict[Direction, Retrieval]:
    """`retrieve` in both directions."""
    return {direction: retrieve(z, t, pairing, direction) for direction in DIRECTIONS}


def best_candidates(queries: np.ndarray, gallery: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` of the gallery [G, D] for each query [Q, D]: (indices, scores), each [Q, min(count, G)].

    Equal scores stand in gallery order.
    """
    scores = queries @ gallery.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(scores, order, axis=1)
