"""What `concept_fit` tells the run of a trained model in MLflow (`tracking/stage_metrics.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from flame_core.concepts.concept_counts import Misalignment
from flame_core.concepts.frequency_fit import Fit


def fit_metrics(fits: Mapping[str, Fit], misaligned: Misalignment | None) -> dict[str, float]:
    """Metrics of a recipe's fits by group, and of the data; numbers that are not defined are left out.

    Args:
        fits: {group: fit}.
        misaligned: of the data that the concepts were counted in; None if pictures were not tagged.

    Returns:
        `freq/<number>/<group>`, and `misalign/<count or rate>/<definition>`.
    """
    found: dict[str, float | None] = {}
    for group, fit in fits.items():
        numbers = {
            "r_binned": fit.binned.r,
            "r_concept": fit.r,
            "r_within": fit.r_within,
            "slope_decade": fit.slope,
            "ci_lo": fit.slope_low,
            "ci_hi": fit.slope_high,
        }
        found |= {f"freq/{name}/{group}": value for name, value in numbers.items()}
    if misaligned is not None:
        rates = misaligned.rates()
        counts = {"published": misaligned.published, "algorithm": misaligned.algorithm}
        for definition, count in counts.items():
            found |= {f"misalign/count/{definition}": count, f"misalign/rate/{definition}": rates[definition]}
    return {name: float(value) for name, value in found.items() if value is not None}
