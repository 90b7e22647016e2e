"""Weights of words: from logits, and how the heaviest of a text are stored.

    phi(x) = elu(x) + 1,  which is x + 1 for x > 0 and exp(x) below;  s = n(phi(logits)), where n divides by the length

A text keeps its `top` heaviest words. Each is one int32: the word's number in the upper half, its weight as float16 in
the lower one; sorted by number, so that a text is a row of a sparse matrix (CSR).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

GRID = 2**10  # steps per unit of a logit: rounded so, it does not depend on the order in which a library adds


def phi(logits: np.ndarray) -> np.ndarray:
    """elu(x) + 1 of every value."""
    return np.where(logits > 0, logits + 1, np.exp(np.minimum(logits, 0)))


def heaviest(weights: np.ndarray, top: int) -> np.ndarray:
    """Numbers [N, top] of the largest of weights [N, V], ascending; of equal ones those with lower numbers."""
    count = weights.shape[1]
    if top >= count:
        return np.broadcast_to(np.arange(count), weights.shape).copy()
    least = np.partition(weights, count - top, axis=1)[:, count - top, None]
    above, equal = weights > least, weights == least
    wanted = top - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= wanted))
    return np.nonzero(chosen)[1].reshape(len(weights), top)


def pack(logits: np.ndarray, top: int) -> np.ndarray:
    """The stored form [N, top] in int32 of the heaviest words of logits [N, V], as unit vectors."""
    numbers = heaviest(logits, top)
    weights = phi(np.take_along_axis(logits, numbers, axis=1).astype(np.float64))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    low = weights.astype(np.float16).view(np.uint16).astype(np.uint32)
    return (numbers.astype(np.uint32) << 16 | low).view(np.int32)


def unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [..., top] in int64 and weights [..., top] in float32 of the stored form."""
    bits = packed.view(np.uint32)
    return (bits >> 16).astype(np.int64), (bits & 0xFFFF).astype(np.uint16).view(np.float16).astype(np.float32)


def dense(packed: np.ndarray, words: int) -> np.ndarray:
    """Vectors [N, V] in float32 of the stored form [N, top]."""
    numbers, weights = unpack(packed)
    vectors = np.zeros((len(packed), words), dtype=np.float32)
    np.put_along_axis(vectors, numbers, weights, axis=1)
    return vectors


def dense_tensor(packed: Tensor, words: int) -> Tensor:
    """As `dense`, of a tensor [..., top], on its device."""
    import torch

    numbers = (packed >> 16) & 0xFFFF
    weights = (packed & 0xFFFF).to(torch.int16).view(torch.float16).float()
    return torch.zeros(*packed.shape[:-1], words, device=packed.device).scatter_(-1, numbers.long(), weights)


def is_active(weights: np.ndarray, words: int) -> np.ndarray:
    """Whether weights of unit vectors are above those of a vector in which all words weigh alike, 1 / sqrt(V)."""
    return weights > words**-0.5


def only_active(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors [N, V] with only their active words; the others are 0."""
    return np.where(is_active(vectors, vectors.shape[1]), vectors, 0)
