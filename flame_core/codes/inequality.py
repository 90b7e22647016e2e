"""How evenly counts are spread: over codes, clusters, words."""

from __future__ import annotations

import numpy as np


def perplexity(counts: np.ndarray) -> float:
    """exp(-sum p ln p): how many equally frequent values would be as hard to guess; 0 without any."""
    total = counts.sum()
    if not total:
        return 0.0
    p = counts[counts > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def gini(counts: np.ndarray) -> float:
    """Gini's coefficient: 0 if all counts are equal, and 1 - 1/n if all is in one of n."""
    total = counts.sum()
    if not total:
        return 0.0
    ordered = np.sort(counts.astype(np.float64))
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))
