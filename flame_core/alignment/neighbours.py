"""Mutual nearest neighbours: whether two models call the same samples similar. Nothing is fitted.

The metric of the Platonic Representation Hypothesis (Huh et al., arXiv 2405.07987): for each sample, the share of its k
nearest neighbours by the one model that are among those by the other. Vectors are centred before they get length 1,
because hidden states of LLMs have a large common part, which hides who is near to whom.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 1024  # rows whose similarities are in memory at once


def nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """[N, k], the rows that are nearest to each row of [N, D] by cosine, without itself, in no order."""
    x = np.asarray(vectors, np.float32)
    x = x - x.mean(axis=0)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(x), _BLOCK):
        similar = x[start : start + _BLOCK] @ x.T
        rows = np.arange(len(similar))
        similar[rows, start + rows] = -np.inf
        found.append(np.argpartition(-similar, k - 1, axis=1)[:, :k])
    return np.concatenate(found)


def shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[N], the share of neighbours [N, k] of each row that both name; by chance it is k / (N - 1)."""
    return (one[:, :, None] == other[:, None, :]).any(axis=2).mean(axis=1)
