"""Checks of how samples are spread over clusters."""

from __future__ import annotations

import numpy as np

from flame_core import gates
from flame_core.params.clustering import ClusterSizeGates


def size_checks(name: str, sizes: np.ndarray, limits: ClusterSizeGates) -> list[gates.Check]:
    """`<name>_filled` and `<name>_balanced`, of the number of samples [K] per cluster."""
    empty, largest = float((sizes == 0).mean()), float(sizes.max() / sizes.mean())
    return [
        gates.Check(
            f"{name}_filled",
            empty <= limits.max_empty_fraction,
            "share of clusters without a sample",
            value=empty,
            threshold=limits.max_empty_fraction,
            keys=[f"cluster {number}" for number in np.flatnonzero(sizes == 0)[:20]],
        ),
        gates.Check(
            f"{name}_balanced",
            largest <= limits.max_over_mean,
            "samples of the largest cluster over the mean",
            value=largest,
            threshold=limits.max_over_mean,
            keys=[f"cluster {sizes.argmax()}"],
        ),
    ]
