"""Layers are chosen on other pairs than they are measured on; intervals and the order of LLMs."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.alignment.measure import Bootstrap, Scores, chosen_layers, fold_of, score
from flame_core.alignment.results import summarise
from flame_core.params.alignment import ProbeParams


def params(**values) -> ProbeParams:
    base = {"llms": {"a": {}, "b": {}}, "towers": {"x": {"model": "m"}}, "pairs": 60, "recall_at": [1, 5]}
    return ProbeParams.model_validate(base | values)


def test_the_layer_of_a_fold_is_the_best_of_the_others():
    folds = fold_of(6, 3)
    assert folds.tolist() == [0, 1, 2, 0, 1, 2]
    values = np.array([[1, 0, 0, 1, 0, 0], [0, 0.5, 0.4, 0, 0.5, 0.4]])
    # without fold 0 layer 1 is best; without fold 1 or 2 layer 0 is
    assert chosen_layers(values, folds).tolist() == [1, 0, 0, 1, 0, 0]


def test_many_layers_of_noise_gain_nothing_by_the_choice():
    draw = np.random.default_rng(0)
    values = (draw.random((200, 300)) < 0.1).astype(float)
    assert values.mean(axis=1).max() > 0.14  # what the best layer on the same pairs would say
    honest = values[chosen_layers(values, fold_of(300, 3)), np.arange(300)]
    assert honest.mean() == pytest.approx(0.1, abs=0.04)


def test_an_interval_is_about_that_of_the_normal_distribution():
    hits = np.repeat([0.0, 1.0], [300, 100])
    found = Bootstrap(400, params(resamples=4000)).estimate(hits)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - half, abs=0.006) and found.high == pytest.approx(0.25 + half, abs=0.006)


def test_the_difference_is_that_of_the_same_pairs():
    """Two LLMs that find the same pairs but for one: the interval is far narrower than that of either."""
    first = np.tile([1.0, 0.0], 100)
    second = first.copy()
    second[0] = 0
    both = {("x", name): Scores([3], hits[None, None], hits[None]) for name, hits in {"a": second, "b": first}.items()}
    found = summarise(both, {"a": 4, "b": 4}, params(recall_at=[5], pairs=200))
    assert [fit.llm for fit in found.fits] == ["b", "a"]
    (difference,) = found.differences
    assert (difference.ahead, difference.behind, difference.by.value) == ("b", "a", pytest.approx(1 / 200))
    assert not difference.is_clear and difference.by.high - difference.by.low < 0.03
    assert found.fits[0].recall[0].high - found.fits[0].recall[0].low > 0.1


def test_recall_is_that_of_folds_which_the_maps_have_not_seen():
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(180, 6))
    pictures = (hidden @ draw.normal(size=(6, 20))).astype(np.float32)
    related = (hidden @ draw.normal(size=(6, 16))).astype(np.float32)
    unrelated = draw.normal(size=(180, 16)).astype(np.float32)
    told: list[int] = []
    found = score(pictures, {7: related, 2: unrelated}, params(pairs=180), lambda: told.append(1))
    assert found.layers == [2, 7] and len(told) == 2
    assert found.recall.shape == (2, 2, 180) and found.neighbours.shape == (2, 180)
    assert found.recall[0, 1].mean() < 0.2 < 0.9 < found.recall[1, 1].mean()  # chance: 5 / 60
    assert found.neighbours[0].mean() < 0.1 < 0.3 < found.neighbours[1].mean()
