"""Pictures whose captions name a topic: 50 topics with 12 kinds of patches each, anywhere in the picture (D4).

A token is the vector of its kind with noise. `disturbed` tokens also have a stronger part that no caption speaks of, as
a colour cast would be: k-means goes by what varies most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOPICS, KINDS, OWN, TOPICAL = 50, 256, 12, 0.35
CASTS = 3  # dimensions of what no caption speaks of


@dataclass(frozen=True)
class Planted:
    """Tokens [N, L, D], captions of each picture, and its topic [N]."""

    tokens: np.ndarray
    captions: list[list[str]]
    topics: np.ndarray


def planted(pictures: int, patches: int = 49, dims: int = 24, disturbed: float = 0.0, seed: int = 0) -> Planted:
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(KINDS, dims))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    of_topic = np.stack([draw.choice(KINDS, OWN, replace=False) for _ in range(TOPICS)])
    topics = draw.integers(0, TOPICS, size=pictures)
    kinds = draw.integers(0, KINDS, size=(pictures, patches))
    topical = draw.random(kinds.shape) < TOPICAL
    kinds = np.where(topical, of_topic[topics[:, None], draw.integers(0, OWN, size=kinds.shape)], kinds)
    tokens = vectors[kinds] + draw.normal(size=(pictures, patches, dims)) * 0.3 / dims**0.5
    if disturbed:
        casts = draw.normal(size=(pictures, patches, CASTS)) * disturbed / CASTS**0.5
        tokens = np.concatenate([tokens, casts], axis=2)
    captions = [[f"a picture of topic{topic}", f"topic{topic} again"] for topic in topics]
    return Planted(tokens.astype(np.float32), captions, topics)
