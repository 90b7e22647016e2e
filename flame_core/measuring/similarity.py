"""Inner products with the same ranking on every machine.

The last bits of a float32 matrix product depend on the BLAS kernel, the number of threads and the place in a block, so
scores that are equal in exact arithmetic are rarely equal as computed. Comparisons that float32 cannot decide are made
in float64, where the product of two float32 numbers is exact and the error of a sum of D of them is at most
gamma_D |x| |y|, gamma_D = D u / (1 - D u), in any order (Higham, "Accuracy and Stability of Numerical Algorithms",
section 3.1). Two scores of a query count as equal if they differ by at most twice that bound, which is always so for
scores that are equal in exact arithmetic. With D = 5,120 that is 1e-12 for a cosine.
"""

from __future__ import annotations

import numpy as np

from flame_core.errors import ComputationError

_BLOCK_SCORES = 8_000_000  # scores in memory at once
_BLOCK_NUMBERS = 8_000_000  # numbers of vectors in memory at once in float64
_CACHED_NUMBERS = 60_000  # numbers that fit into a core's cache
_CROWDED = 64  # a query with over 1 / 64 of the gallery near its best answer is scored completely in float64


def error_bound(dimensions: int, precision: type[np.floating]) -> float:
    """gamma_D: the largest error of a computed inner product of D numbers, relative to |x| |y|, in any order."""
    rounding = dimensions * float(np.finfo(precision).eps) / 2
    return rounding / (1 - rounding)


def similarities(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Inner products [Q, G] in float64, each with an error of at most half of `resolution`.

    Raises:
        ComputationError: one of them is not finite.
    """
    asked = np.asarray(queries, np.float64)
    scores = np.empty((len(asked), len(gallery)))
    step = max(1, _BLOCK_NUMBERS // max(1, asked.shape[1]))
    for start in range(0, len(gallery), step):
        scores[:, start : start + step] = asked @ np.asarray(gallery[start : start + step], np.float64).T
    return _finite(scores)


def resolution(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """[Q]: the largest difference of two `similarities` of a query that are equal in exact arithmetic."""
    return 2 * error_bound(queries.shape[-1], np.float64) * _norms(queries) * _norms(gallery).max(initial=0.0)


def first_best(scores: np.ndarray, resolved: np.ndarray) -> np.ndarray:
    """[...]: index of the first of the largest scores [..., G]; scores within `resolved` [...] count as equal."""
    return (scores >= scores.max(axis=-1, keepdims=True) - resolved[..., None]).argmax(axis=-1)


def best_candidates(queries: np.ndarray, gallery: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` of the gallery [G, D] for each query [Q, D]: (indices, scores), each [Q, min(count, G)].

    Equal scores are in gallery order.
    """
    count = min(count, len(gallery))
    resolved = resolution(queries, gallery)
    order = np.empty((len(queries), count), np.int64)
    found = np.empty((len(queries), count))
    block = max(1, _BLOCK_SCORES // max(1, len(gallery)))
    for first in range(0, len(queries), block):
        scores = similarities(queries[first : first + block], gallery)
        for row, line in enumerate(scores, start=first):
            order[row] = _in_order(line, resolved[row])[:count]
            found[row] = line[order[row]]
    return order, found


def _in_order(line: np.ndarray, resolved: float) -> np.ndarray:
    """Indices of scores [G], the best first; scores connected by a chain of equals are in gallery order."""
    order = np.argsort(-line, kind="stable")
    groups = np.cumsum(np.diff(-line[order], prepend=-line[order[:1]]) > resolved)
    return order[np.lexsort((order, groups))]


def count_ahead(queries: np.ndarray, gallery: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compare the gallery with the best right answer of each query.

    Args:
        queries: [Q, D].
        gallery: [G, D].
        edges: [E, 2] (query, right answer), sorted by query; every query has at least one.

    Returns:
        ahead, tied, right, [Q] each: number of candidates with a better score, with the same score (including itself),
        and of right answers among the tied.

    Raises:
        ComputationError: a score is not finite.
    """
    count, dimensions = queries.shape
    starts = np.searchsorted(edges[:, 0], np.arange(count + 1))
    kind = np.result_type(queries, gallery)
    resolved = resolution(queries, gallery)
    ratio = error_bound(dimensions, kind.type) / error_bound(dimensions, np.float64)
    doubt = (ratio / 2 + 2) * resolved + dimensions * float(np.finfo(kind.type).tiny)  # of a score minus the best one
    ahead, tied, right = (np.empty(count, np.int64) for _ in range(3))
    block = max(1, _BLOCK_SCORES // max(1, len(gallery)))
    for first in range(0, count, block):
        rows = slice(first, min(first + block, count))
        mine = edges[starts[rows.start] : starts[rows.stop]] - np.array([first, 0])
        asked, offsets = queries[rows], starts[rows] - starts[first]
        answers = _finite(_products(asked, gallery, mine))  # [E of the block]
        best: np.ndarray = np.maximum.reduceat(answers, offsets)
        is_best = answers >= (best - resolved[rows])[mine[:, 0]]
        right[rows] = np.add.reduceat(is_best.astype(np.int64), offsets)
        ahead[rows], tied[rows] = _count_block(asked, gallery, best, resolved[rows], doubt[rows])
    return ahead, np.maximum(tied, right), right


def _count_block(
    queries: np.ndarray, gallery: np.ndarray, best: np.ndarray, resolved: np.ndarray, doubt: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(ahead, tied) of scores against `best` [Q]: in the inputs' precision if that is certain, else in float64."""
    scores = _finite(queries @ gallery.T)  # [Q, G]
    low, high = _outwards(best - doubt, best + doubt, scores.dtype)
    ahead = np.count_nonzero(scores > high[:, None], axis=1)
    near = np.count_nonzero(scores >= low[:, None], axis=1) - ahead
    tied = np.ones_like(ahead)  # if only one score is near, it is the right answer's own
    crowded = near > max(1, len(gallery) // _CROWDED)
    some = np.flatnonzero((near > 1) & ~crowded)
    if len(some):
        doubtful = scores[some]
        line, candidate = np.nonzero((doubtful >= low[some, None]) & (doubtful <= high[some, None]))
        pairs = np.stack([some[line], candidate], axis=1)
        above = _products(queries, gallery, pairs) - best[pairs[:, 0]]
        slack = resolved[pairs[:, 0]]
        ahead[some] += np.bincount(line[above > slack], minlength=len(some))
        tied[some] = np.bincount(line[np.abs(above) <= slack], minlength=len(some))
    if crowded.any():
        above = similarities(queries[crowded], gallery) - best[crowded, None]
        slack = resolved[crowded, None]
        ahead[crowded] = np.count_nonzero(above > slack, axis=1)
        tied[crowded] = np.count_nonzero(np.abs(above) <= slack, axis=1)
    return ahead, tied


def _outwards(low: np.ndarray, high: np.ndarray, kind: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The ends in the precision of the scores, rounded so that the interval does not shrink."""
    return np.nextafter(low.astype(kind), kind.type(-np.inf)), np.nextafter(high.astype(kind), kind.type(np.inf))


def _products(queries: np.ndarray, gallery: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[E]: inner products in float64 of pairs [E, 2] (query, candidate)."""
    found = np.empty(len(pairs))
    step = max(1, _CACHED_NUMBERS // max(1, queries.shape[1]))
    for start in range(0, len(pairs), step):
        query, candidate = pairs[start : start + step].T
        left, right = queries[query].astype(np.float64), gallery[candidate].astype(np.float64)
        found[start : start + step] = np.vecdot(left, right)
    return found


def _norms(vectors: np.ndarray) -> np.ndarray:
    """[N]: lengths in float64."""
    found = np.empty(len(vectors))
    step = max(1, _CACHED_NUMBERS // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        part = np.asarray(vectors[start : start + step], np.float64)
        found[start : start + step] = np.sqrt(np.vecdot(part, part))
    return _finite(found)


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ComputationError("a similarity is not finite: the model's weights or the embeddings are broken")
    return scores
