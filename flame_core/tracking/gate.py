"""Decides whether a challenger may become champion, from two results on the same held-out pictures.

Every measure of the held-out split, in every language, is compared picture by picture (as `flame compare` does), so the
interval of a difference does not include the chance in choosing the split, which both models share. The intervals of
`evaluate.benchmarks` come from `benchmark_gate`. A measure is worse if its whole interval is below zero and it fell by
more than `promote.tolerance`; it is better if its whole interval is above zero. The challenger is promoted if no
measure is worse and the plain mean over the held-out measures rose by at least `promote.min_gain`.

With few pictures, no model would be significantly worse. A measure on fewer than `promote.min_pictures` is therefore
shown but not judged; if no measure of the held-out split has that many, the answer is "cannot judge", even for a first
champion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from rich.console import Console

from flame_core import reporting
from flame_core.errors import InputError
from flame_core.measuring.estimates import means_of
from flame_core.measuring.intervals import Mean, difference_interval, mean_of
from flame_core.measuring.results import Results
from flame_core.params import PromoteParams
from flame_core.terminal import print_title

MEAN = "mean of the held-out measures"
TOO_FEW = "too few"  # a measure that is shown and not judged
_DIGITS = 6


@dataclass(frozen=True)
class Difference:
    """One measure of both models; `low` and `high` bound the difference."""

    measure: str
    champion: float
    challenger: float
    difference: float
    low: float
    high: float
    verdict: str  # better, worse, same, too few


@dataclass(frozen=True)
class Verdict:
    """The gate's answer and the reasons for it."""

    outcome: Literal["promoted", "refused", "cannot judge"]
    reason: str
    rule: str
    differences: list[Difference]

    @property
    def promoted(self) -> bool:
        return self.outcome == "promoted"

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return asdict(self)


def rule(params: PromoteParams, confidence: float) -> str:
    """The rule in words."""
    return (
        f"no measure may fall by more than {params.tolerance:g} with its {confidence:.0%} interval wholly "
        f"below zero, and the mean over the held-out measures must rise by at least {params.min_gain:g}; "
        f"measures on fewer than {params.min_pictures} pictures are not judged"
    )


def first_champion(challenger: Results, params: PromoteParams, confidence: float) -> Verdict:
    """The verdict if there is no champion yet."""
    if not _judged(means_of(challenger.outcomes, challenger.pictures), params):
        return _cannot_judge(challenger, params, confidence, [])
    return Verdict("promoted", "there was no champion to compare with", rule(params, confidence), [])


def judge(
    champion: Results,
    challenger: Results,
    params: PromoteParams,
    confidence: float,
    benchmarks: Sequence[Difference] = (),
) -> Verdict:
    """Compare two models on the same pictures, and by their differences on `benchmarks`.

    Raises:
        InputError: the results are of different pictures, or share no measure.
    """
    if champion.split != challenger.split:
        raise InputError("champion and challenger were measured on different pictures, so they cannot be compared")
    old, new = (means_of(each.outcomes, each.pictures) for each in (champion, challenger))
    measures = sorted(old.keys() & new.keys())
    if not measures:
        raise InputError("champion and challenger have no measure in common")
    judged = _judged({measure: new[measure] for measure in measures}, params)
    rows = [_compared(measure, new[measure], old[measure], params, confidence) for measure in judged]
    few = [
        replace(_compared(measure, new[measure], old[measure], params, confidence), verdict=TOO_FEW)
        for measure in measures
        if measure not in judged
    ]
    few += [row for row in benchmarks if row.verdict == TOO_FEW]
    benchmarks = [row for row in benchmarks if row.verdict != TOO_FEW]
    if not rows:
        return _cannot_judge(challenger, params, confidence, [*few, *benchmarks])
    now, before = (mean_of([each[measure] for measure in judged]) for each in (new, old))
    mean = _compared(MEAN, now, before, params, confidence)
    compared = [*rows, *benchmarks]
    worse = [row.measure for row in compared if row.verdict == "worse"]
    outcome: Literal["promoted", "refused"] = "refused"
    if worse:
        reason = f"worse in {len(worse)} of {len(compared)} measures: {', '.join(worse[:5])}"
    elif mean.difference < params.min_gain:
        reason = (
            f"the mean over {len(rows)} held-out measures changed by {mean.difference:+.4f}, and promote.min_gain asks "
            f"for {params.min_gain:+g}"
        )
    else:
        better = sum(row.verdict == "better" for row in compared)
        outcome = "promoted"
        reason = (
            f"the mean over {len(rows)} held-out measures changed by {mean.difference:+.4f}; {better} of "
            f"{len(compared)} measures better, none worse"
        )
    return Verdict(outcome, reason, rule(params, confidence), [mean, *compared, *few])


def _judged(means: Mapping[str, Mean], params: PromoteParams) -> list[str]:
    """The measures that have enough pictures."""
    return [name for name, mean in means.items() if np.count_nonzero(mean.weights) >= params.min_pictures]


def _cannot_judge(
    challenger: Results, params: PromoteParams, confidence: float, differences: list[Difference]
) -> Verdict:
    reason = (
        f"cannot judge: the held-out split has {challenger.pictures} pictures, and no measure has the "
        f"{params.min_pictures} that promote.min_pictures asks for"
    )
    return Verdict("cannot judge", reason, rule(params, confidence), differences)


def _compared(measure: str, new: Mean, old: Mean, params: PromoteParams, confidence: float) -> Difference:
    low, high = difference_interval(new, old, confidence)
    return difference(measure, old.value, new.value, low, high, params.tolerance)


def show(verdict: Verdict) -> None:
    """Show the verdict, and its table if models were compared."""
    said = verdict.reason if verdict.outcome == "cannot judge" else f"{verdict.outcome}: {verdict.reason}"
    if not verdict.differences:
        print_title(Console(), said)
        return
    reporting.table(
        said,
        ["measure", "champion", "challenger", "difference", "interval", "verdict"],
        [
            (
                row.measure,
                f"{row.champion:.4f}",
                f"{row.challenger:.4f}",
                f"{row.difference:+.4f}",
                f"{row.low:+.4f} to {row.high:+.4f}",
                row.verdict,
            )
            for row in verdict.differences
        ],
    )


def difference(measure: str, old: float, new: float, low: float, high: float, tolerance: float) -> Difference:
    """One row of the table, with its verdict."""
    change = float(new - old)
    verdict = "worse" if high < 0 and change < -tolerance else "better" if low > 0 else "same"
    a, b, c, d, e = (round(float(value), _DIGITS) for value in (old, new, change, low, high))
    return Difference(measure, a, b, c, d, e, verdict)
