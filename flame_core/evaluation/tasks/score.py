"""The result of a task in one language: metrics with bootstrap intervals, and chance where it is known.

Metric names are those of CLIP_benchmark (`acc1`, `text_retrieval_recall@5`, ...), so its `build` reads the results;
the ends of an interval are `<metric>_low` and `<metric>_high`, chance is `<metric>_chance`. All are between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flame_core.evaluation.bootstrap import Bootstrap
from flame_core.evaluation.estimates import mean_of_known

MEAN = "mean"  # the plain mean over languages, where a language stands
Texts = Callable[[Sequence[str]], np.ndarray]  # texts -> [N, D]


@dataclass
class Score:
    """One language of a benchmark.

    Attributes:
        language: its code, or `mean`.
        metrics: {metric: value}.
        draws: {metric: [samples]} of the bootstrap, for means over languages.
        chance: {metric: value of a model that knows nothing}.
        facts: other numbers, such as how many pictures and texts there were.
    """

    language: str
    metrics: dict[str, float] = field(default_factory=dict)
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float, draws: np.ndarray, chance: float | None = None) -> None:
        """Add a metric."""
        self.metrics[name], self.draws[name] = value, draws
        if chance is not None:
            self.chance[name] = chance

    def intervals(self, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
        """{metric: (low, high)}."""
        found = {}
        for name, draws in self.draws.items():
            low, high = bootstrap.interval(draws[:, None])
            found[name] = (float(low[0]), float(high[0]))
        return found


def over_languages(scores: Sequence[Score]) -> Score:
    """The plain mean over languages, draw by draw: the same drawn pictures in all of them."""
    mean = Score(MEAN, facts={"languages": len(scores)})
    for name in scores[0].metrics:
        parts: Mapping[str, list] = {
            "value": [score.metrics[name] for score in scores],
            "chance": [score.chance[name] for score in scores if name in score.chance],
        }
        draws = mean_of_known(np.stack([score.draws[name] for score in scores], axis=1))
        chance = float(np.mean(parts["chance"])) if parts["chance"] else None
        mean.add(name, float(np.mean(parts["value"])), draws, chance)
    return mean
