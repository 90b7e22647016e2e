"""Checks of counts of concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flame_core.concepts.concept_counts import Counts
from flame_core.concepts.concept_out import Frequencies
from flame_core.concepts.tag_thresholds import Calibrated
from flame_core.gates import Check
from flame_core.params.concepts import ConceptGates

_NAMED = 20  # concepts that a check names


def concept_checks(
    found: Frequencies, recounted: Counts, rows: Mapping[str, int], counted: Mapping[str, int], limits: ConceptGates
) -> list[Check]:
    """The checks of a counting.

    Args:
        found: the merged counts.
        recounted: the same, from the hits that are in the out.
        rows: samples of each shard in the index.
        counted: samples of each shard that were counted.
        limits: thresholds.
    """
    counts, names = found.counts, found.concepts.names
    over = (counts.both > np.minimum(found.text, counts.image)) & (counts.image >= 0)
    differing = sorted(shard for shard in rows.keys() | counted.keys() if rows.get(shard) != counted.get(shard))
    same = np.logical_and.reduce(
        [getattr(counts, side) == getattr(recounted, side) for side in ("bag", "phrase", "image", "both")]
    )
    zero, unknown = found.text == 0, np.array([bool(each) for each in found.unknown])
    checks = [
        Check(
            "concept_counts_joint",
            not over.any(),
            "concepts with more samples in both than in one",
            value=int(over.sum()),
            threshold=0,
            keys=_some(names, over),
        ),
        Check(
            "concept_shards_complete",
            not differing,
            "shards whose counted samples are not those of the index",
            value=len(differing),
            threshold=0,
            keys=differing[:_NAMED],
        ),
        Check(
            "concept_shards_add_up",
            bool(same.all()),
            "concepts whose count is not the number of samples in the stored hits",
            value=int((~same).sum()),
            threshold=0,
            keys=_some(names, ~same),
        ),
        Check(
            "concepts_found",
            float(zero.mean()) <= limits.max_zero_fraction,
            "share of concepts that no caption mentions",
            value=float(zero.mean()),
            threshold=limits.max_zero_fraction,
            blocking=False,
            keys=_some(names, zero),
        ),
        Check(
            "concept_words_known",
            float(unknown.mean()) <= limits.max_unknown_fraction,
            "share of concepts with a word that no caption has",
            value=float(unknown.mean()),
            threshold=limits.max_unknown_fraction,
            blocking=False,
            keys=_some(names, unknown),
        ),
    ]
    return checks + (_of_both_sides(found, limits) if (counts.image >= 0).any() else [])


def _of_both_sides(found: Frequencies, limits: ConceptGates) -> list[Check]:
    told = found.counts.image >= 0
    agreement = rank_correlation(found.text[told], found.counts.image[told])
    rate = found.counts.misalignment.rates()["published"]
    return [
        Check(
            "concept_sides_agree",
            agreement >= limits.min_sides_spearman,
            "rank correlation of the concepts' counts in captions and in pictures",
            value=agreement,
            threshold=limits.min_sides_spearman,
            blocking=False,
        ),
        Check(
            "concept_pairs_aligned",
            rate <= limits.max_misaligned,
            "share of samples whose caption and picture have concepts, but none in common",
            value=rate,
            threshold=limits.max_misaligned,
            blocking=False,
        ),
    ]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; 0 if one of them is constant or there are fewer than two."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def calibration_check(found: Calibrated, names: Sequence[str], limits: ConceptGates) -> Check:
    """That labels gave every concept which has some a threshold, and one that tells its pictures."""
    wrong = {number: f"F1 {f1:.2f}" for number, f1 in found.f1.items() if f1 < limits.min_agreement} | found.left
    return Check(
        "concept_thresholds_calibrated",
        not wrong,
        "lowest F1 of a calibrated threshold on its labelled pictures; named are concepts below, or without one",
        value=round(min(found.f1.values()), 6) if found.f1 else None,
        threshold=limits.min_agreement,
        blocking=False,
        keys=[f"{names[number]} ({why})" for number, why in sorted(wrong.items())][:_NAMED],
    )


def _some(names: Sequence[str], which: np.ndarray) -> list[str]:
    return [names[int(number)] for number in np.flatnonzero(which)[:_NAMED]]
