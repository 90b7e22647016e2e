"""The result of a task in one language: metrics with intervals, and chance if it is known.

Metric names are those of CLIP_benchmark (`acc1`, `text_retrieval_recall@5`, ...), so that its `build` reads the
results; the ends of an interval are `<metric>_low` and `<metric>_high`, chance is `<metric>_chance`. All are between 0
and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flame_core.measuring.intervals import Mean, interval, mean_of

MEAN = "mean"  # in place of a language: the unweighted mean over languages
Texts = Callable[[Sequence[str]], np.ndarray]  # texts -> [N, D]


@dataclass(frozen=True)
class ClassScore:
    """A class of a benchmark: its name, its pictures, and how many of them are right at the first place."""

    name: str
    pictures: int
    hits: float


@dataclass
class Score:
    """One language of a benchmark.

    Attributes:
        language: its code, or `mean`.
        metrics: {metric: value}.
        means: {metric: what its interval is computed from}.
        chance: {metric: value of a model that knows nothing}.
        facts: other numbers, such as the number of pictures and texts.
        classes: of zero-shot classification, each class.
    """

    language: str
    metrics: dict[str, float] = field(default_factory=dict)
    means: dict[str, Mean] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    classes: list[ClassScore] = field(default_factory=list)

    def add(self, name: str, mean: Mean, chance: float | None = None) -> None:
        """Add a metric."""
        self.metrics[name], self.means[name] = mean.value, mean
        if chance is not None:
            self.chance[name] = chance

    def intervals(self, confidence: float) -> dict[str, tuple[float, float]]:
        """{metric: (low, high)}."""
        return {name: interval(mean, confidence) for name, mean in self.means.items()}


def over_languages(scores: Sequence[Score]) -> Score:
    """The unweighted mean over languages of the metrics that all have, about the same pictures."""
    found = Score(MEAN, facts={"languages": len(scores)})
    for name in [name for name in scores[0].metrics if all(name in score.metrics for score in scores)]:
        chances = [score.chance[name] for score in scores if name in score.chance]
        mean = mean_of([score.means[name] for score in scores])
        found.add(name, mean, float(np.mean(chances)) if chances else None)
    return found
