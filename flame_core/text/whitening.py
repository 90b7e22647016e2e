"""The matrix of `text.center: whiten`: after it, the training vectors vary equally in all directions.

    W = U diag(1 / sqrt(l)) U^T,    l = (1 - s) eigenvalues + s mean eigenvalue

of the covariance of the vectors, each about its facet's mean; the share s keeps directions in which few vectors vary
from being blown up. W is symmetric, so vectors stay near where they were (ZCA), and is scaled to keep their size.
"""

from __future__ import annotations

import numpy as np

MATRIX = "matrix"  # tensor in the file of means
_SHRUNK = 0.1  # s


def whitening(sample: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """W [D, D] in float32 of vectors [N, K, D] with the means [K, D]."""
    x = (sample.astype(np.float64) - mean).reshape(-1, sample.shape[-1])
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    shrunk = (1 - _SHRUNK) * np.maximum(values, 0) + _SHRUNK * max(float(values.mean()), 1e-12)
    scale = np.sqrt(shrunk.mean() / shrunk)
    return np.asarray((vectors * scale) @ vectors.T, dtype=np.float32)
