"""Draws of samples: the order that always was, exact shares by weight, balanced batches; resume and ranks agree."""

from __future__ import annotations

import os
import random
import signal
from array import array
from pathlib import Path

import numpy as np
import pytest

from flame_core.concepts.bitmaps import bitmap_of, write_bitmaps
from flame_core.concepts.concept_counts import Counts, Misalignment
from flame_core.concepts.concept_list import Given, concept_list
from flame_core.concepts.concept_out import FREQUENCIES, MANIFEST, MISALIGNMENT, Frequencies, hits_name
from flame_core.concepts.concept_weights import sample_weights
from flame_core.data.shards import Index, read_index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import json_bytes
from flame_core.errors import InputError, Interrupted
from flame_core.gates import CHECKS, to_bytes
from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.training.loader import EpochOrder, TrainingSamples
from flame_core.training.loop import train
from flame_core.training.sampling import Balanced, Uniform, Weighted, open_draws, soft_cap
from flame_core.verification import write_digests
from flame_core.work import UnitRecord, WorkCache
from tests.training.world import recipe, samples_of, write_world

SHARD = "train/00000.tar"


def test_the_default_is_the_order_that_always_was():
    order = array("q", range(11))
    random.Random("order 3 2").shuffle(order)
    batch = Uniform(11, 3).epoch(2, 4)
    assert [*batch(0), *batch(1)] == list(order[:8])
    assert list(EpochOrder(11, 4, 3, seed=3)) == list(EpochOrder(11, 4, 3, seed=3, draws=Uniform(11, 3)))


def test_samples_come_in_proportion_to_their_weights_and_copies_are_spread():
    weights = np.array([0.0, 1, 2, 4, 0.5, 0.5])
    draws, epochs = Weighted(weights, seed=1), 400
    total = np.zeros(6)
    for epoch in range(epochs):
        order = draws.order(epoch)
        times = np.bincount(order, minlength=6)
        assert len(order) == 6 and times[3] == 3 and times[2] in (1, 2) and times[0] == 0
        total += times
    assert total / epochs == pytest.approx(6 * weights / weights.sum(), abs=0.08)
    many = Weighted(np.array([50.0, *np.ones(50)]), seed=0).order(0)
    places = np.flatnonzero(many == 0)
    assert len(places) in (25, 26) and np.diff(places).max() <= 6
    assert (draws.order(5) == Weighted(weights, 1).order(5)).all()
    assert any((draws.order(e) != Weighted(weights, 2).order(e)).any() for e in range(5))


def test_soft_caps_are_the_means_of_drawing_batch_after_batch():
    """The paper's algorithm, with one sample a batch: each time it is drawn, a sample's logit loses the penalty."""
    draw, penalty, count = np.random.default_rng(0), 0.5, 40_000
    start = draw.normal(0, 2, 40)
    logits, times = start.copy(), np.zeros(40)
    for _ in range(count):
        chosen = int((logits + draw.gumbel(size=40)).argmax())
        logits[chosen] -= penalty
        times[chosen] += 1
    found = soft_cap(start, penalty, count)
    assert found.sum() == pytest.approx(count) and found == pytest.approx(times, abs=8)
    assert found.max() - found.min() == pytest.approx(np.ptp(start) / penalty, rel=1e-6)


def test_soft_caps_go_from_equal_shares_to_the_softmax():
    logits = np.array([-3.0, 0.0, 1.0, 2.0])
    softmax = np.exp(logits) / np.exp(logits).sum()
    assert soft_cap(logits, 1e-9, 100) / 100 == pytest.approx(softmax, rel=1e-5)
    assert soft_cap(logits, 1e9, 100) == pytest.approx(25, rel=1e-6)
    assert soft_cap(np.zeros(3), 0.1, 6) == pytest.approx(2)
    assert soft_cap(logits + 700, 0.2, 50) == pytest.approx(soft_cap(logits, 0.2, 50))
    assert soft_cap(np.array([0.0, -5000.0]), 0.1, 10) == pytest.approx([10, 0])


def balanced(concepts: list[list[int]], seed: int = 0, oversample: int = 4) -> Balanced:
    ends = np.cumsum([0, *map(len, concepts)])
    return Balanced(ends, np.array([c for own in concepts for c in own], np.int32), oversample, seed)


def test_a_balanced_batch_has_rare_concepts_and_no_sample_twice():
    """90 samples of concept 0, ten of 1 to 5 each twice, twenty without any."""
    concepts = [[0]] * 90 + [[1 + i // 2] for i in range(10)] + [[] for _ in range(20)]
    draws = balanced(concepts, oversample=10)
    batch = draws.epoch(0, 12)(0)  # chosen from 120: all of them
    assert len(set(batch)) == 12
    counts = np.bincount([c for number in batch for c in concepts[number]], minlength=6)
    assert (counts[1:] == 2).all() and counts[0] == 2  # the target is 12 / 6
    uniform = np.bincount([c for n in Uniform(120, 0).epoch(0, 12)(0) for c in concepts[n]], minlength=6)
    assert (uniform[1:] > 0).sum() < 5


def test_the_greedy_choice_is_that_of_the_formula():
    draw = np.random.default_rng(0)
    concepts = [sorted(draw.choice(8, size=draw.integers(0, 4), replace=False).tolist()) for _ in range(60)]
    draws = balanced(concepts)
    candidates = draw.permutation(60)[:40]
    held = [c for n in candidates for c in concepts[n]]
    frequency = {c: held.count(c) for c in set(held)}
    target, inside, taken = 10 / len(frequency), dict.fromkeys(frequency, 0), []
    for _ in range(10):
        gains = [
            -1.0
            if n in taken
            else sum(max(0.0, 1 - inside[c] / target) / frequency[c] for c in concepts[n]) / max(1, len(concepts[n]))
            for n in candidates
        ]
        best = max(gains)
        pick = candidates[next(i for i, gain in enumerate(gains) if gain > best - 1e-9)]
        taken.append(pick)
        for c in concepts[pick]:
            inside[c] += 1
    assert set(draws.choose(candidates, 10).tolist()) == set(taken)


@pytest.mark.parametrize("draws", [Weighted(np.arange(1.0, 25.0), 0), balanced([[n % 5] for n in range(24)])])
def test_a_resumed_order_and_those_of_ranks_are_parts_of_the_whole(draws):
    whole = list(EpochOrder(24, 8, 3, seed=0, draws=draws))
    assert len(whole) == 9
    assert list(EpochOrder(24, 8, 3, 0, first_step=4, draws=draws)) == whole[4:]
    parts = [list(EpochOrder(24, 8, 3, 0, 0, Ranks(rank, 2), draws)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


@pytest.fixture
def world(tmp_path) -> Path:
    """The toys with three concepts: in all 24, in every fourth, in two; and weights."""
    write_world(tmp_path)
    index = read_index(tmp_path / "shards", "train")
    sets = [np.arange(24), np.arange(0, 24, 4), np.array([3, 7])]
    concepts = concept_list([Given(name, "file", "x") for name in ("a1", "b1", "c1")], "en")
    counts = np.array([24, 6, 2])
    absent = np.full(3, -1)
    found = Frequencies(concepts, [[]] * 3, Counts(counts, counts, absent, absent, Misalignment(24)), "phrase")
    folder = tmp_path / "concepts"
    (folder / "hits").mkdir(parents=True)
    hits = [bitmap_of(rows) for rows in sets]
    write_bitmaps(folder / hits_name(SHARD), {"bag": hits, "phrase": hits})
    (folder / FREQUENCIES).write_bytes(found.to_bytes())
    (folder / MANIFEST).write_bytes(json_bytes({"index": index.digest(), "mode": "phrase"}))
    (folder / MISALIGNMENT).write_bytes(json_bytes({"counts": vars(Misalignment(24)), "rates": None}))
    (folder / CHECKS).write_bytes(to_bytes([]))
    write_digests(folder)
    weigh(tmp_path, index, np.linspace(0, 2, 24))
    return tmp_path


def weigh(folder: Path, index: Index, weights: np.ndarray) -> None:
    def write(place: Path) -> UnitRecord:
        write_values(place, "weights", weights.astype(np.float32))
        return UnitRecord({})

    unit = WorkCache(folder / "work", "concepts").get({"weights": weights.tolist()}, write)
    gather_sidecar(folder / "weights", folder / "state", {SHARD: unit}, index, "concepts", {})


SAMPLINGS = {
    "weighted": {"name": "weighted", "weights": "weights"},
    "soft_cap": {"name": "soft_cap", "scores": "weights", "temperature": 0.5, "penalty": 0.4},
    "capped": {"name": "capped", "cap": 6, "concepts": "concepts"},
    "balanced": {"name": "balanced", "oversample": 2, "concepts": "concepts"},
}


def sampled(way: str) -> TrainParams:
    return recipe(sampling=SAMPLINGS[way])


def test_stored_weights_and_capped_concepts_become_weights(world):
    index = read_index(world / "shards", "train")
    stored = open_draws(sampled("weighted"), world / "weights", index, index)
    assert isinstance(stored, Weighted) and stored.weights == pytest.approx(np.linspace(0, 2, 24))
    scored = open_draws(sampled("soft_cap"), world / "weights", index, index)
    draws = sampled("soft_cap").schedule(24).epochs * 24
    assert isinstance(scored, Weighted) and scored.weights == pytest.approx(
        soft_cap(np.linspace(0, 4, 24), 0.4, draws), rel=1e-5
    )
    capped = open_draws(sampled("capped"), world / "concepts", index, index)
    hits = [bitmap_of(np.arange(24)), bitmap_of(np.arange(0, 24, 4)), bitmap_of(np.array([3, 7]))]
    expected = sample_weights(hits, 24, np.array([24, 6, 2]), 6, 1.0)
    assert isinstance(capped, Weighted) and capped.weights == pytest.approx(expected)
    fewer = Index(index.table.slice(0, 8))  # of which 8, 2 and 2 have the concepts
    own = open_draws(sampled("capped"), world / "concepts", fewer, index)
    hits = [bitmap_of(np.arange(8)), bitmap_of(np.array([0, 4])), bitmap_of(np.array([3, 7]))]
    assert isinstance(own, Weighted) and own.weights == pytest.approx(
        sample_weights(hits, 8, np.array([8, 2, 2]), 6, 1.0)
    )
    some = Index(index.table.take([3, 4, 5]))
    part = open_draws(sampled("balanced"), world / "concepts", some, index)
    assert isinstance(part, Balanced)
    assert [part.concepts[a:b].tolist() for a, b in zip(part.ends, part.ends[1:], strict=False)] == [
        [0, 2],
        [0, 1],
        [0],
    ]


def test_bad_sources_are_refused(world):
    index = read_index(world / "shards", "train")
    with pytest.raises(InputError, match="counted in other shards; run `flame concepts` again"):
        other = Index(index.table.slice(1))
        open_draws(sampled("balanced"), world / "concepts", other, other)
    weigh(world, index, -np.ones(24))
    with pytest.raises(InputError, match="the weight of sample 0 is -1, below 0"):
        open_draws(sampled("weighted"), world / "weights", index, index)
    weigh(world, index, np.zeros(24))
    with pytest.raises(InputError, match="no sample that is trained on has a weight above 0"):
        open_draws(sampled("weighted"), world / "weights", index, index)
    with pytest.raises(InputError, match="is missing"):
        open_draws(sampled("capped"), world / "nowhere", index, index)


@pytest.mark.parametrize("way", SAMPLINGS)
def test_a_stopped_training_resumes_bit_for_bit(world, monkeypatch, way):
    params = sampled(way)
    index = read_index(world / "shards", "train")
    source = world / (params.sampling.source or "")
    whole, metrics, _ = train(
        samples_of(world, params), params, world / "a", draws=open_draws(params, source, index, index)
    )
    fetched, original = [], TrainingSamples.__getitem__

    def stopping(self, batch):
        fetched.append(batch)
        if len(fetched) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(TrainingSamples, "__getitem__", stopping)
    with pytest.raises(Interrupted):
        train(samples_of(world, params), params, world / "b", draws=open_draws(params, source, index, index))
    monkeypatch.undo()
    resumed, again, _ = train(
        samples_of(world, params), params, world / "b", draws=open_draws(params, source, index, index)
    )
    state = {name: value.numpy().tobytes() for name, value in whole.state_dict().items()}
    assert {name: value.numpy().tobytes() for name, value in resumed.state_dict().items()} == state
    assert again == metrics
    plain, _, _ = train(samples_of(world, recipe()), recipe(), world / "plain")
    assert {name: value.numpy().tobytes() for name, value in plain.state_dict().items()} != state


def test_a_place_is_no_value_of_a_recipe():
    elsewhere = recipe(sampling={**SAMPLINGS["capped"], "concepts": "data/other"})
    assert sampled("capped").identity == elsewhere.identity != recipe().identity
    assert "sampling" not in recipe().identity and "sampling" not in recipe().dump()
    assert sampled("capped").dump()["sampling"]["cap"] == 6
