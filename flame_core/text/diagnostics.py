"""How good the texts can be: the anisotropy of a store, and how much variance the facets account for.

An image tower that learns from these texts cannot separate captions that the LLM itself does not separate. Several
facets hold more information than one only if they differ from each other differently for different captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DIGITS = 9  # more depend on the order of sums


def nearest(t: np.ndarray, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The row nearest to each of `rows` [R] for each facet, among unit facet embeddings t [N, K, D].

    Returns:
        Rows [R, K], and their cosines [R, K]. A row is never its own neighbour.
    """
    cosines = np.einsum("rkd,nkd->rkn", t[rows], t)
    cosines[np.arange(len(rows)), :, rows] = -2.0
    found = cosines.argmax(axis=2)
    return found, np.take_along_axis(cosines, found[..., None], axis=2)[..., 0]


def anisotropy(t: np.ndarray) -> dict[str, float]:
    """Statistics of unit facet embeddings t [N, K, D] in float32.

    Returns:
        mean_cosine: mean cosine between different captions at the same facet.
        top_direction_energy: share of the uncentred energy along the first principal direction.
        caption_share, facet_share, interaction_share: parts of the variance around the grand mean that are due to
            the caption, to the facet prompt, and to their interaction; they add up to 1.
        facet_cosine: mean cosine between different facets of the same caption (1 if K is 1).
    """
    n, k, d = t.shape
    t = t.astype(np.float64)
    sums = t.sum(axis=0)  # [K, D]
    mean_cosine = float(((sums**2).sum() - (t**2).sum()) / (k * n * (n - 1))) if n > 1 else 1.0
    flat = t.reshape(-1, d)
    moment = flat.T @ flat
    top = float(np.linalg.eigvalsh(moment)[-1] / max(np.trace(moment), 1e-12))
    mean, captions, facets = t.mean((0, 1)), t.mean(1), t.mean(0)
    total = max(((t - mean) ** 2).sum(), 1e-12)
    caption_share = float(k * ((captions - mean) ** 2).sum() / total)
    facet_share = float(n * ((facets - mean) ** 2).sum() / total)
    own = t.sum(axis=1)  # [N, D]
    facet_cosine = float(((own**2).sum() - (t**2).sum()) / (n * k * (k - 1))) if k > 1 else 1.0
    found = {
        "mean_cosine": mean_cosine,
        "top_direction_energy": top,
        "caption_share": caption_share,
        "facet_share": facet_share,
        "interaction_share": max(0.0, 1.0 - caption_share - facet_share),
        "facet_cosine": facet_cosine,
    }
    return {name: round(value, _DIGITS) for name, value in found.items()}
