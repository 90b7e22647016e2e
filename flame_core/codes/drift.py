"""Whether new samples still fit what was frozen: how much farther they lie from their codes or centroids."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np


class Drift(NamedTuple):
    """How much farther, as a share of the distance then: 0.1 if a tenth farther; and over how many new samples."""

    share: float
    samples: int


def drift(keys: Sequence[str], cosine: np.ndarray, known: Collection[str], then: float) -> Drift:
    """The drift of the samples that were not known then; of all, if none is known, and 0 if none is new.

    Args:
        keys: of the samples, [n].
        cosine: of each with its code or centroid, [n].
        known: keys of the samples at the time of freezing.
        then: their mean cosine.
    """
    new = np.array([key not in known for key in keys], dtype=bool)
    if not new.any():
        return Drift(0.0, 0)
    now = 1.0 - float(cosine[new].mean(dtype=np.float64))
    return Drift(now / max(1.0 - then, 1e-9) - 1.0, int(new.sum()))
