"""Retrieval between pictures and texts: recall@k, median rank and chance, in both directions.

A bipartite graph (`Pairing`) defines the right texts of each picture: a picture may have several texts, and pictures
that share a text are all right answers to it. Equal texts are one gallery entry, so they never occupy several ranks,
and one query, so they never count twice. A query is a hit at k if any right answer is among the first k.

Ties are resolved by expectation: candidates with equal scores are treated as if in random order, and a hit is the
probability that a right answer is among the first k. A model that gives every candidate the same score therefore gets
exactly chance, in any gallery order and on any machine (`similarity`). Scores are computed in blocks of queries, so
50,000 x 50,000 scores are never in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flame_core.measuring.similarity import count_ahead

Direction = Literal["image_to_text", "text_to_image"]
DIRECTIONS: tuple[Direction, ...] = ("image_to_text", "text_to_image")
_PARTS = 2**24  # probabilities are multiples of 1 / _PARTS


@dataclass(frozen=True)
class Pairing:
    """Pictures and texts that belong together.

    Attributes:
        pictures: [P] rows of the split, ascending; only pictures with at least one text.
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
class Ranking:
    """Where the best right answer of each of Q queries is among the candidates.

    Attributes:
        ahead: [Q] number of candidates with a strictly better score (none of them is right).
        tied: [Q] number of candidates with the same score, including itself.
        right: [Q] number of right answers among the tied.
    """

    ahead: np.ndarray
    tied: np.ndarray
    right: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """[Q] probability that a right answer is among the first k, over random orders of ties."""
        return some_of(self.tied, self.right, np.maximum(k - self.ahead, 0))

    def ranks(self) -> np.ndarray:
        """[Q] expected rank of the first right answer; 1 is best."""
        return self.ahead + (self.tied + 1) / (self.right + 1)


@dataclass(frozen=True)
class Retrieval:
    """The results of one direction over one pairing.

    Attributes:
        ranking: of each of Q queries.
        answers: [Q] number of right answers of each query.
        gallery: number of candidates.
        pictures: [Q] row in the split of the query's picture (the first one, if a text has several); intervals treat
            pictures as the independent units.
    """

    ranking: Ranking
    answers: np.ndarray
    gallery: int
    pictures: np.ndarray

    def recall(self, k: int) -> float:
        """Mean of `Ranking.hits` over the queries."""
        return float(self.ranking.hits(k).mean())

    def median_rank(self) -> float:
        return float(np.median(self.ranking.ranks()))

    def chance(self, k: int) -> float:
        """Exact recall@k of a random ranking: hypergeometric per query, mean over the queries."""
        return float(some_of(np.full_like(self.answers, self.gallery), self.answers, np.int64(k)).mean())


def some_of(population: np.ndarray, right: np.ndarray, drawn: np.ndarray | np.integer) -> np.ndarray:
    """Probability that at least one of `right` is among `drawn` of `population`, without replacement (elementwise).

    It is rounded to a multiple of 2^-24, so sums are exact, in any order.
    """
    population, right, drawn = np.broadcast_arrays(population, right, drawn)
    missed = np.ones(population.shape)
    for i in range(int(drawn.max(initial=0))):
        left = np.maximum(population - i, 1)
        missed = np.where(i < drawn, missed * np.maximum(population - right - i, 0) / left, missed)
    return np.rint((1.0 - missed) * _PARTS) / _PARTS


def rank_answers(queries: np.ndarray, gallery: np.ndarray, edges: np.ndarray) -> Ranking:
    """Rank the gallery for each query by the inner product.

    Args:
        queries: [Q, D].
        gallery: [G, D].
        edges: [E, 2] (query, right answer), sorted by query; every query has at least one.

    Raises:
        ComputationError: a score is not finite.
    """
    if len(np.unique(edges[:, 0])) != len(queries):
        raise ValueError("a query without a right answer cannot be ranked")
    return Ranking(*count_ahead(queries, gallery, edges))


def retrieve(z: np.ndarray, t: np.ndarray, pairing: Pairing, direction: Direction) -> Retrieval:
    """Measure one direction.

    Args:
        z: [N, D] picture embeddings of the whole split.
        t: [T, D] embeddings of `pairing.texts`.
        pairing: which pictures and texts belong together.
        direction: whether pictures or texts are the queries.
    """
    edges = pairing.towards(direction)
    pictures = z[pairing.pictures]
    queries, gallery = (pictures, t) if direction == "image_to_text" else (t, pictures)
    first = np.searchsorted(edges[:, 0], np.arange(len(queries)))
    owners = np.arange(len(queries)) if direction == "image_to_text" else edges[first, 1]
    return Retrieval(
        ranking=rank_answers(queries, gallery, edges),
        answers=np.bincount(edges[:, 0], minlength=len(queries)),
        gallery=len(gallery),
        pictures=pairing.pictures[owners],
    )


def both_ways(z: np.ndarray, t: np.ndarray, pairing: Pairing) -> dict[Direction, Retrieval]:
    """`retrieve` in both directions."""
    return {direction: retrieve(z, t, pairing, direction) for direction in DIRECTIONS}
