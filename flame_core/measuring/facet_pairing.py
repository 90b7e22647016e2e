"""Which view of a picture answers which facet of a text.

Texts of a single prompt meet z_0, the picture as a whole. Of a text with K facets, facet j meets z_j, the picture's
facet j, or z_0 where the tower has no such facet; the similarity is the mean over j of <z_j, t_j>. Laid end to end, it
is one inner product: pictures are [z_0, z_1, ..., z_F], and texts [sum of t_j with j > F, t_1, ..., t_F] / K.
"""

from __future__ import annotations

import numpy as np

from flame_core.text.facets import REFERENCE


def meets_whole(kind: str) -> bool:
    """Whether texts of a kind (`Benchmark.text_kind`) are one vector each, which meets the picture as a whole."""
    return kind == "raw" or kind.endswith(REFERENCE)


def picture_facet(views: np.ndarray, j: int) -> np.ndarray:
    """What facet j >= 1 of a text meets, [N, D], in the views [N, 1 + F, D] of pictures."""
    return views[:, j if j < views.shape[1] else 0]


def picture_vectors(views: np.ndarray) -> np.ndarray:
    """[N, (1 + F) * D] of views [N, 1 + F, D]: as `text_vectors`; nothing is copied."""
    return views.reshape(len(views), -1)


def text_vectors(t: np.ndarray, facets: int) -> np.ndarray:
    """[T, (1 + F) * D] of texts t [T, K, D] for pictures with F facets."""
    count, asked, dimensions = t.shape
    own = min(asked, facets)
    laid = np.zeros((count, 1 + facets, dimensions), np.float32)
    laid[:, 0] = t[:, own:].sum(axis=1)
    laid[:, 1 : 1 + own] = t[:, :own]
    return laid.reshape(count, -1) / asked
