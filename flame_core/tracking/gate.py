"""Whether a challenger may become champion: the rule, as a function of two results on the same held-out pictures.

Every measure of the held-out split, in every language, is compared picture by picture (paired bootstrap, as `flame
compare` does), so the interval of a difference is free of the luck of the split that both models share. Benchmarks of
`evaluate.benchmarks` come with the intervals that `benchmark_gate` gives them. A measure counts as worse when its whole
interval lies below zero and it fell by more than `promote.tolerance`; as better when its whole interval lies above
zero. The challenger is promoted when no measure is worse and the plain mean over the held-out measures rose by at least
`promote.min_gain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flame_core import reporting
from flame_core.errors import InputError
from flame_core.evaluation.bootstrap import Bootstrap
from flame_core.evaluation.results import Results
from flame_core.params import BootstrapParams, PromoteParams

MEAN = "mean of the held-out measures"
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
    verdict: str  # better, worse, same


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, and all it rests on."""

    promoted: bool
    reason: str
    rule: str
    differences: list[Difference]

    def to_json(self) -> dict[str, Any]:
        """The verdict as it is stored."""
        return asdict(self)


def rule(params: PromoteParams, bootstrap: BootstrapParams) -> str:
    """The rule in words."""
    return (
        f"no measure may fall by more than {params.tolerance:g} with its {bootstrap.confidence:.0%} interval wholly "
        f"below zero, and the mean over the held-out measures must rise by at least {params.min_gain:g}"
    )


def first_champion(params: PromoteParams, bootstrap: BootstrapParams) -> Verdict:
    """The verdict where there is no champion yet."""
    return Verdict(True, "there was no champion to compare with", rule(params, bootstrap), [])


def judge(
    champion: Results,
    challenger: Results,
    params: PromoteParams,
    bootstrap: BootstrapParams,
    benchmarks: Sequence[Difference] = (),
) -> Verdict:
    """Compare two models on the same pictures, and by what is known of them on `benchmarks`.

    Raises:
        InputError: the results are of different pictures, or share no measure.
    """
    if champion.split != challenger.split:
        raise InputError("champion and challenger were measured on different pictures, so they cannot be compared")
    measures = sorted(_measures(champion.outcomes) & _measures(challenger.outcomes))
    if not measures:
        raise InputError("champion and challenger have no measure in common")
    draws = Bootstrap(champion.pictures, bootstrap)
    old, old_draws = _estimates(champion, measures, draws)
    new, new_draws = _estimates(challenger, measures, draws)
    low, high = draws.interval(new_draws - old_draws)
    rows = [
        difference(measure, old[i], new[i], low[i], high[i], params.tolerance) for i, measure in enumerate(measures)
    ]
    ends = draws.interval((new_draws - old_draws).mean(axis=1, keepdims=True))
    mean = difference(MEAN, old.mean(), new.mean(), ends[0][0], ends[1][0], params.tolerance)
    compared = [*rows, *benchmarks]
    worse = [row.measure for row in compared if row.verdict == "worse"]
    if worse:
        promoted, reason = False, f"worse in {len(worse)} of {len(compared)} measures: {', '.join(worse[:5])}"
    elif mean.difference < params.min_gain:
        promoted, reason = False, f"the mean over {len(rows)} held-out measures changed by {mean.difference:+.4f}"
    else:
        better = sum(row.verdict == "better" for row in compared)
        promoted = True
        reason = (
            f"the mean over {len(rows)} held-out measures rose by {mean.difference:.4f}; {better} of {len(compared)} "
            "measures better, none worse"
        )
    return Verdict(promoted, reason, rule(params, bootstrap), [mean, *compared])


def show(verdict: Verdict) -> None:
    """Show the verdict and its table."""
    reporting.table(
        f"{'promoted' if verdict.promoted else 'refused'}: {verdict.reason}",
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


def _measures(outcomes: pa.Table) -> set[str]:
    return set(outcomes["measure"].unify_dictionaries().combine_chunks().dictionary.to_pylist())


def _estimates(results: Results, measures: list[str], draws: Bootstrap) -> tuple[np.ndarray, np.ndarray]:
    """Values [M] and their draws [samples, M]."""
    column = {measure: index for index, measure in enumerate(measures)}
    sums, counts = (np.zeros((results.pictures, len(measures))) for _ in range(2))
    for row in results.outcomes.to_pylist():
        if (at := column.get(row["measure"])) is not None:
            sums[row["picture"], at] = row["sum"]
            counts[row["picture"], at] = row["queries"]
    return sums.sum(axis=0) / counts.sum(axis=0), draws.means(sums, counts)


def difference(measure: str, old: float, new: float, low: float, high: float, tolerance: float) -> Difference:
    """One row of the table, with its verdict."""
    change = float(new - old)
    verdict = "worse" if high < 0 and change < -tolerance else "better" if low > 0 else "same"
    a, b, c, d, e = (round(float(value), _DIGITS) for value in (old, new, change, low, high))
    return Difference(measure, a, b, c, d, e, verdict)
