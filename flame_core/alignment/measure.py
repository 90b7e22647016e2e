"""Scores of every LLM, layer and tower on the same pairs, and how sure they are.

Of each fold of the pairs, the maps are fitted on the other folds, so that every pair is measured by maps that have not
seen it, among the pairs of its fold. The layer that stands for an LLM is chosen for each fold on the other folds; the
best one on the pairs that it is measured on would flatter LLMs with many layers.

Intervals are percentiles of a bootstrap over pairs. All LLMs, layers and towers have the same resamples: a difference
is resampled as a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from flame_core.alignment.maps import Components, fit_maps, hits
from flame_core.alignment.neighbours import nearest, shared
from flame_core.params.alignment import ProbeParams


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """What an LLM's layers reach with a tower, pair by pair.

    Attributes:
        layers: L, ascending.
        recall: [L, K, N], share of a pair's two queries that find it among the first k.
        neighbours: [L, N], share of mutual nearest neighbours.
    """

    layers: list[int]
    recall: np.ndarray
    neighbours: np.ndarray


def score(
    pictures: np.ndarray, texts: Mapping[int, np.ndarray], chosen: ProbeParams, advance: Callable[[], None]
) -> Scores:
    """The scores of a tower's vectors [N, C] and an LLM's, {layer: [N, D]}; `advance` is called per layer."""
    folds = fold_of(len(pictures), chosen.folds)
    near = nearest(pictures, chosen.neighbours)
    bases = [Components.of(pictures[folds != fold]) for fold in range(chosen.folds)]
    recall, neighbours = [], []
    for vectors in (texts[layer] for layer in sorted(texts)):
        found = np.zeros((len(chosen.recall_at), len(pictures)), np.float32)
        for fold, base in enumerate(bases):
            fitted, held = folds != fold, folds == fold
            own = Components.of(vectors[fitted])
            maps = fit_maps(base(pictures[fitted]), own(vectors[fitted]), chosen.maps, chosen.seed)
            found[:, held] = hits(*maps(base(pictures[held]), own(vectors[held])), chosen.recall_at)
        recall.append(found)
        neighbours.append(shared(near, nearest(vectors, chosen.neighbours)))
        advance()
    return Scores(sorted(texts), np.stack(recall), np.stack(neighbours))


def fold_of(count: int, folds: int) -> np.ndarray:
    """[N], the fold of each of so many pairs; they were drawn at random, so every `folds`-th is of the same."""
    return np.arange(count) % folds


def chosen_layers(values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """[N], the number of the layer that stands for pair n: the best of `values` [L, N] over the other folds."""
    best = np.array([values[:, folds != fold].mean(axis=1).argmax() for fold in range(folds.max() + 1)])
    return best[folds]


class Bootstrap:
    """Resamples of N pairs, the same for whatever is measured on them."""

    def __init__(self, count: int, chosen: ProbeParams) -> None:
        draw = np.random.default_rng(chosen.seed)
        self._weights = draw.multinomial(count, np.full(count, 1 / count), size=chosen.resamples) / count  # [B, N]
        self._ends = ((1 - chosen.confidence) / 2, (1 + chosen.confidence) / 2)

    def means(self, values: np.ndarray) -> np.ndarray:
        """[B], the mean of values [N] in each resample."""
        return self._weights @ values

    def estimate(self, values: np.ndarray) -> Estimate:
        """The mean of values [N], with its interval."""
        low, high = np.quantile(self.means(values), self._ends)
        return Estimate(float(values.mean()), float(low), float(high))
