"""What `flame probe` found: per tower and LLM the scores by layer, the LLMs in order, and differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flame_core.alignment.measure import Bootstrap, Estimate, Scores, chosen_layers, fold_of
from flame_core.params.alignment import ProbeParams


@dataclass(frozen=True)
class Layer:
    """A layer of an LLM with a tower."""

    layer: int
    recall: list[Estimate]  # by k, mean of both directions
    neighbours: Estimate


@dataclass(frozen=True)
class Fit:
    """An LLM with a tower.

    Attributes:
        llm, tower: their names in the params.
        depth: decoder layers of the LLM.
        layers: those that were read, ascending.
        best: the layer that is best over all pairs.
        recall: by k, of layers chosen on other pairs than those that they are measured on.
        neighbours: of the layer that is best in it, chosen in the same way.
        nearest_layer: that layer, over all pairs.
    """

    llm: str
    tower: str
    depth: int
    layers: list[Layer]
    best: int
    recall: list[Estimate]
    neighbours: Estimate
    nearest_layer: int


@dataclass(frozen=True)
class Difference:
    """How much more recall the first of two LLMs has with a tower, at the largest k."""

    tower: str
    ahead: str
    behind: str
    by: Estimate
    agreeing: float  # share of resamples in which it is ahead

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.by.low > 0


@dataclass(frozen=True)
class Found:
    """All results.

    Attributes:
        pairs: N.
        gallery: pairs among which one is looked for.
        fits: by tower as in the params, then from the best LLM to the worst.
        differences: of each LLM from the next, in the same order.
    """

    pairs: int
    gallery: int
    fits: list[Fit]
    differences: list[Difference]

    def of_tower(self, tower: str) -> list[Fit]:
        return [fit for fit in self.fits if fit.tower == tower]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(scores: Mapping[tuple[str, str], Scores], depths: Mapping[str, int], chosen: ProbeParams) -> Found:
    """The results of scores by (tower, LLM), all of the same pairs; `depths` by LLM."""
    count = next(iter(scores.values())).neighbours.shape[1]
    folds, bootstrap = fold_of(count, chosen.folds), Bootstrap(count, chosen)
    fits: list[Fit] = []
    differences: list[Difference] = []
    for tower in dict.fromkeys(tower for tower, _ in scores):
        own = {llm: found for (of, llm), found in scores.items() if of == tower}
        heads = {llm: _at_chosen(found.recall[:, -1], folds) for llm, found in own.items()}  # [N]
        order = sorted(own, key=lambda llm: (-heads[llm].mean(), llm))
        fits += [_fit(llm, tower, depths[llm], own[llm], folds, bootstrap) for llm in order]
        differences += [_difference(tower, order, at, heads, bootstrap) for at in range(len(order) - 1)]
    return Found(count, count // chosen.folds, fits, differences)


def _at_chosen(values: np.ndarray, folds: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
    """[N] of values [L, N] at the layers that are best on other folds, of these values or of `by` [L, N]."""
    return values[chosen_layers(values if by is None else by, folds), np.arange(values.shape[1])]


def _fit(llm: str, tower: str, depth: int, found: Scores, folds: np.ndarray, bootstrap: Bootstrap) -> Fit:
    head = found.recall[:, -1]
    ks = range(found.recall.shape[1])
    layers = [
        Layer(layer, [bootstrap.estimate(found.recall[at, k]) for k in ks], bootstrap.estimate(found.neighbours[at]))
        for at, layer in enumerate(found.layers)
    ]
    return Fit(
        llm,
        tower,
        depth,
        layers,
        found.layers[int(head.mean(axis=1).argmax())],
        [bootstrap.estimate(_at_chosen(found.recall[:, k], folds, head)) for k in ks],
        bootstrap.estimate(_at_chosen(found.neighbours, folds)),
        found.layers[int(found.neighbours.mean(axis=1).argmax())],
    )


def _difference(
    tower: str, order: Sequence[str], at: int, heads: Mapping[str, np.ndarray], bootstrap: Bootstrap
) -> Difference:
    ahead, behind = order[at], order[at + 1]
    gain = heads[ahead] - heads[behind]
    return Difference(tower, ahead, behind, bootstrap.estimate(gain), float((bootstrap.means(gain) > 0).mean()))
