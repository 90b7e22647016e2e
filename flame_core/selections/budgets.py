"""How many samples each cluster gives to a selection: quotas by mode, rounded by largest remainder to the exact total.

    proportional   q_c = s n_c            every cluster keeps the same share
    sqrt           q_c = s sqrt(n_c)      large clusters keep a smaller share
    capped         q_c = min(n_c, s)      no cluster gives more than s; small ones are kept whole

where n_c is the size of cluster c, q_c is at most n_c, and s makes the sum of all quotas the budget. Each cluster gives
floor(q_c) samples, and the clusters with the largest remainders give one more each; equal remainders: the larger
cluster, then the lower number.

A cluster gives its first samples in an order that never changes (`picking.py`), so a selection holds a smaller one if
no cluster gives fewer samples. Largest remainder alone does not promise that: with a larger budget, a small cluster may
lose its one sample (the Alabama paradox). `at_least` takes the counts of the smaller selection as a lower bound.
"""

from __future__ import annotations

import numpy as np

from flame_core.params import SelectionMode


def quotas(sizes: np.ndarray, budget: int, mode: SelectionMode) -> np.ndarray:
    """q_c of each cluster, [C] in float64; their sum is the budget.

    Args:
        sizes: samples per cluster, [C].
        budget: at most the sum of the sizes.
        mode: of the table above; `random` does not look at clusters and is no mode here.
    """
    n = sizes.astype(np.float64)
    if mode == "proportional":
        return n * (budget / max(n.sum(), 1.0))
    weights = np.sqrt(n) if mode == "sqrt" else np.where(n > 0, 1.0, 0.0)
    return _filled(n, weights, float(budget))


def _filled(n: np.ndarray, weights: np.ndarray, budget: float) -> np.ndarray:
    """min(n_c, s w_c) with the s at which the sum is the budget: clusters fill up in the order of n_c / w_c."""
    q = np.zeros_like(n)
    there = np.flatnonzero(n)
    order = there[np.argsort(n[there] / weights[there], kind="stable")]
    full = np.concatenate([[0.0], np.cumsum(n[order])])  # of the first i clusters, kept whole
    rest = np.concatenate([np.cumsum(weights[order][::-1])[::-1], [0.0]])  # weights of the others
    for i, cluster in enumerate(order):
        s = (budget - full[i]) / rest[i]
        if s * weights[cluster] < n[cluster]:
            q[order[:i]] = n[order[:i]]
            q[order[i:]] = s * weights[order[i:]]
            return q
    return n.copy()


def allocate(sizes: np.ndarray, budget: int, mode: SelectionMode, at_least: np.ndarray | None = None) -> np.ndarray:
    """Samples that each cluster gives, [C] in int64; their sum is the budget.

    Args:
        sizes: samples per cluster, [C].
        budget: at most the sum of the sizes.
        mode: how quotas follow from sizes.
        at_least: a lower bound of each count, [C]; the sum of the bounds is at most the budget.

    Raises:
        ValueError: the budget is above the sizes or below the bounds.
    """
    low = np.zeros(len(sizes), np.int64) if at_least is None else at_least.astype(np.int64)
    if not low.sum() <= budget <= sizes.sum():
        raise ValueError(f"a budget of {budget} lies outside {low.sum()} to {sizes.sum()}")
    q = np.round(quotas(sizes, budget, mode), 9)  # quotas that are whole but for rounding errors are whole
    counts = np.minimum(np.maximum(np.floor(q).astype(np.int64), low), sizes)
    while (left := budget - int(counts.sum())) != 0:
        step = 1 if left > 0 else -1
        open_ = np.flatnonzero(counts < sizes if step > 0 else counts > low)
        order = open_[np.lexsort((open_, -sizes[open_], -step * (q - counts)[open_]))]
        counts[order[: abs(left)]] += step
    return counts
