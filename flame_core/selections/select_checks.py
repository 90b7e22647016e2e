"""The checks of `flame select`: of clusters, budgets, drift and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flame_core import gates
from flame_core.clustering.size_checks import size_checks
from flame_core.codes.drift import Drift
from flame_core.params import SelectParams
from flame_core.selections.selecting import Selected


def select_checks(
    sizes: np.ndarray,
    selected: Sequence[Selected],
    captions: Mapping[str, float],
    drifted: Drift | None,
    chosen: SelectParams,
) -> list[gates.Check]:
    """Checks of the clusters, the selections and the captions."""
    limits = chosen.gates
    wrong = [
        each.name
        for each in selected
        if not len(set(each.picked.places.tolist())) == len(each.picked.places) == each.budget == each.counts.sum()
    ]
    checks = [
        *size_checks("groups", sizes, limits),
        gates.Check(
            "budgets_met",
            not wrong,
            "selections whose samples are not as many, and each once, as their budget says",
            value=len(wrong),
            threshold=0,
            keys=wrong,
        ),
    ]
    if drifted is not None:
        checks.append(
            gates.Check(
                "groups_steady",
                drifted.share <= limits.max_drift,
                f"how much farther {drifted.samples} new samples lie from their centroids",
                value=drifted.share,
                threshold=limits.max_drift,
                blocking=False,
            )
        )
    generated = {kind: value for kind, value in captions.items() if kind != "raw"}
    if "raw" in captions and generated:
        over = {kind: value - captions["raw"] for kind, value in generated.items()}
        checks.append(
            gates.Check(
                "captions_distinct",
                max(over.values()) <= limits.max_caption_cosine,
                "mean cosine between generated captions of different pictures, less that between raw ones",
                value=max(over.values()),
                threshold=limits.max_caption_cosine,
                blocking=False,
                keys=[kind for kind, value in over.items() if value > limits.max_caption_cosine],
            )
        )
    return checks
