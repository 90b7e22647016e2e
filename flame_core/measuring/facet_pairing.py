"""Pairs the facets of a text with the views of a picture.

A text with a single prompt is compared with z_0, the whole picture. For a text with K facets, facet j is compared with
z_j, the picture's facet j, or with z_0 if the tower has no such facet; the similarity is the mean over j of <z_j, t_j>.
Concatenated, it is one inner product: of [z_0, z_1, ..., z_F] and [sum of t_j with j > F, t_1, ..., t_F] / K.
"""

from __future__ import annotations

import numpy as np

from flame_core.text.facets import REFERENCE


def meets_whole(kind: str) -> bool:
    """Whether a text of a kind (`Benchmark.text_kind`) is one vector, to compare with the whole picture."""
    return kind == "raw" or kind.endswith(REFERENCE)


def picture_facet(views: np.ndarray, j: int) -> np.ndarray:
    """The view [N, D] to compare with facet j >= 1 of a text, from the views [N, 1 + F, D] of pictures."""
    return views[:, j if j < views.shape[1] else 0]


def picture_vectors(views: np.ndarray) -> np.ndarray:
    """[N, (1 + F) * D] from views [N, 1 + F, D], matching `text_vectors`; nothing is copied."""
    return views.reshape(len(views), -1)


def text_vectors(t: np.ndarray, facets: int) -> np.ndarray:
    """[T, (1 + F) * D] from texts t [T, K, D], for pictures with F facets."""
    count, asked, dimensions = t.shape
    own = min(asked, facets)
    laid = np.zeros((count, 1 + facets, dimensions), np.float32)
    laid[:, 0] = t[:, own:].sum(axis=1)
    laid[:, 1 : 1 + own] = t[:, :own]
    return laid.reshape(count, -1) / asked
