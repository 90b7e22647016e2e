"""Which samples the batches of an epoch have: each once, by weights, or chosen so that concepts are balanced.

Whatever the way, an epoch has as many batches, and a batch depends only on the seed, the epoch and its number in the
epoch. So a training that is resumed, or that runs on several processes, draws the same batches.

- `Uniform`: a permutation of all samples.
- `Weighted`: sample i is drawn N w_i / sum w times on average: the whole part always, the rest by systematic sampling.
  Its copies are spread evenly over the epoch, so that a batch rarely has one twice. Weights are stored, follow from
  counts of concepts, or from scores (`soft_cap`).
- `Balanced`: each batch is chosen from `oversample` times as many samples, in the manner of CABS' diversity
  maximisation (arXiv 2511.20643). Samples are taken one by one, the one whose concepts are rarest first: its gain is
  the mean over its concepts c of max(0, 1 - n_c / t) / F_c. n_c is how often c is in the batch so far, F_c how often it
  is among the samples to choose from, and t the batch size over the number of their concepts. When no sample adds
  anything, the first ones that are left fill the batch.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.optimize import root_scalar

from flame_core import gates
from flame_core.data.shards import Index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError
from flame_core.params import TrainParams
from flame_core.params.sampling import (
    BalancedSampling,
    CappedSampling,
    SoftCapSampling,
    UniformSampling,
    WeightedSampling,
)

Batches = Callable[[int], Sequence[int]]  # number of a batch in its epoch -> numbers of its samples
_WEIGHTED, _BALANCED = 1, 2  # in the seeds of generators
_NOTHING = 1e-12  # a gain below this is a rounding error


class Draws(Protocol):
    """How the samples of an epoch are drawn."""

    def epoch(self, epoch: int, batch_size: int) -> Batches:
        """The batches of an epoch, of all ranks."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Each of the samples once per epoch."""

    samples: int
    seed: int

    def epoch(self, epoch: int, batch_size: int) -> Batches:
        order = array("q", range(self.samples))
        random.Random(f"order {self.seed} {epoch}").shuffle(order)
        return lambda step: order[step * batch_size : (step + 1) * batch_size]


@dataclass(frozen=True)
class Weighted:
    """Samples by their weights [N], of which at least one is above 0."""

    weights: np.ndarray
    seed: int

    def epoch(self, epoch: int, batch_size: int) -> Batches:
        order = self.order(epoch)
        return lambda step: order[step * batch_size : (step + 1) * batch_size].tolist()

    def order(self, epoch: int) -> np.ndarray:
        """[N] numbers of samples, each as often as it is drawn."""
        count = len(self.weights)
        draw = np.random.default_rng([self.seed, epoch, _WEIGHTED])
        expected = self.weights.astype(np.float64) * (count / self.weights.sum(dtype=np.float64))
        times = np.floor(expected).astype(np.int64)
        left = count - int(times.sum())
        if left:
            mixed = draw.permutation(count)
            reached = np.cumsum((expected - times)[mixed])
            points = (draw.random() + np.arange(left)) * (reached[-1] / left)
            times[mixed[np.minimum(np.searchsorted(reached, points, side="right"), count - 1)]] += 1
        numbers = np.repeat(np.arange(count), times)
        copies = np.arange(count) - np.repeat(np.cumsum(times) - times, times)
        place = (draw.random(count)[numbers] + copies) / times[numbers]
        return numbers[np.argsort(place, kind="stable")]


@dataclass(frozen=True)
class Balanced:
    """Batches with balanced concepts.

    Attributes:
        ends: [N + 1] where the concepts of each sample end.
        concepts: their numbers, sample after sample.
        oversample: samples that each one of a batch is chosen from.
        seed: of the permutations.
    """

    ends: np.ndarray
    concepts: np.ndarray
    oversample: int
    seed: int

    def epoch(self, epoch: int, batch_size: int) -> Batches:
        count = len(self.ends) - 1
        rounds = [
            np.random.default_rng([self.seed, epoch, _BALANCED, number]).permutation(count)
            for number in range(self.oversample)
        ]
        stream = np.concatenate(rounds)

        def batch(step: int) -> list[int]:
            several = stream[step * batch_size * self.oversample : (step + 1) * batch_size * self.oversample]
            first = np.sort(np.unique(several, return_index=True)[1])
            return self.choose(several[first], batch_size).tolist()

        return batch

    def choose(self, candidates: np.ndarray, size: int) -> np.ndarray:
        """`size` of different samples, in the order in which they are given."""
        lengths = self.ends[candidates + 1] - self.ends[candidates]
        owner = np.repeat(np.arange(len(candidates)), lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        present, concept = np.unique(
            self.concepts[self.ends[candidates][owner] + within], return_inverse=True
        )  # numbers of the concepts that the candidates have
        frequency = np.bincount(concept, minlength=len(present))
        by_concept = np.split(owner[np.argsort(concept, kind="stable")], np.cumsum(frequency)[:-1])
        by_sample = np.split(concept, np.cumsum(lengths)[:-1])
        target = max(1.0, size / max(1, len(present)))
        share = 1 / np.maximum(lengths, 1)
        gain = np.bincount(owner, share[owner] / frequency[concept], len(candidates))
        taken, inside = np.zeros(len(candidates), bool), np.zeros(len(present))
        for _ in range(size):
            best = int(gain.argmax())
            if gain[best] <= _NOTHING:
                break
            taken[best], gain[best] = True, -np.inf
            for number in by_sample[best].tolist():
                lost = min(1.0, target - inside[number]) / target if inside[number] < target else 0.0
                inside[number] += 1
                if lost > 0:
                    gain[by_concept[number]] -= lost / frequency[number] * share[by_concept[number]]
        left = size - int(taken.sum())
        taken[np.flatnonzero(~taken)[:left]] = True
        return candidates[taken]


def soft_cap(logits: np.ndarray, penalty: float, draws: int) -> np.ndarray:
    """How often each sample is drawn on average by soft cap sampling (arXiv 2503.08805), [N] with the sum `draws`.

    The paper draws batches in turn, sample i in proportion to exp(s_i - alpha n_i), n_i the times it was drawn before.
    In the limit of small batches dn_i / dt = exp(s_i - alpha n_i), so n_i = log(1 + alpha t exp(s_i)) / alpha; t is
    where the sum is `draws`.

    Args:
        logits: s, finite, [N].
        penalty: alpha.
        draws: in the whole training.
    """

    def times(log_t: float) -> np.ndarray:
        return np.logaddexp(0.0, logits + log_t) / penalty

    each = penalty * draws / len(logits)  # alpha times the mean of n
    middle = np.log(np.expm1(each)) if each < 30 else each  # where n would be the mean if all logits were 0
    bracket = middle - logits.max() - 1, middle - logits.min() + 1
    return times(root_scalar(lambda log_t: times(log_t).sum() - draws, bracket=bracket).root)


def open_draws(recipe: TrainParams, source: Path | None, selected: Index, index: Index) -> Draws:
    """How a recipe draws its samples.

    Args:
        recipe: has the params.
        source: what `recipe.sampling` reads, if anything.
        selected: the rows to train on.
        index: all rows of the training split.

    Raises:
        InputError: the source is missing, damaged or of other shards, or no sample has a weight above 0.
        GateError: it failed a blocking check.
    """
    sampling = recipe.sampling
    if isinstance(sampling, UniformSampling) or source is None:
        return Uniform(len(selected), recipe.seed)
    gates.require(source)
    if isinstance(sampling, WeightedSampling):
        return Weighted(_usable(_stored_numbers(source, selected, index), source), recipe.seed)
    if isinstance(sampling, SoftCapSampling):
        logits = _stored_numbers(source, selected, index) / sampling.temperature
        draws = recipe.schedule(len(selected)).epochs * len(selected)
        return Weighted(soft_cap(logits, sampling.penalty, draws), recipe.seed)
    ends, concepts, frequency = _concepts_of(source, selected, index)
    if isinstance(sampling, CappedSampling):
        missed = np.ones(len(selected))
        owner = np.repeat(np.arange(len(selected)), np.diff(ends))
        np.multiply.at(missed, owner, 1 - np.minimum(1.0, sampling.cap / frequency[concepts]))
        weights = np.where(np.diff(ends) > 0, 1 - missed, sampling.other)
        return Weighted(_usable(weights, source), recipe.seed)
    assert isinstance(sampling, BalancedSampling)
    return Balanced(ends, concepts, sampling.oversample, recipe.seed)


def _usable(weights: np.ndarray, source: Path) -> np.ndarray:
    if (negative := np.flatnonzero(weights < 0)).size:
        raise InputError(f"{source}: the weight of sample {negative[0]} is {weights[negative[0]]:g}, below 0")
    if not weights.any():
        raise InputError(f"{source}: no sample that is trained on has a weight above 0")
    return weights


def _stored_numbers(folder: Path, selected: Index, index: Index) -> np.ndarray:
    sidecar = Sidecar(folder)
    sidecar.require_aligned(index)
    if sidecar.manifest.shape != ():
        raise InputError(f"{folder}: train.sampling needs one number per sample, not {list(sidecar.manifest.shape)}")
    return sidecar.read_rows(selected).numpy().astype(np.float64)


def _concepts_of(folder: Path, selected: Index, index: Index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ends [N + 1], concepts) of the selected samples, and how many of these have each concept (1 at least)."""
    # other trainings need no bitmaps
    from flame_core.concepts.bitmaps import read_bitmaps, rows_of
    from flame_core.concepts.concept_out import hits_name, read_manifest

    manifest = read_manifest(folder)
    if manifest.get("index") != index.digest():
        raise InputError(f"{folder}: counted in other shards; run `flame concepts` again")
    numbers: dict[str, np.ndarray] = {shard: np.full(rows, -1, np.int64) for shard, rows in index.shard_sizes().items()}
    places = selected.table.column("row").to_numpy()
    for shard, own in selected.spans().items():
        numbers[shard][places[own.start : own.stop]] = np.arange(own.start, own.stop)
    owners: list[np.ndarray] = []
    concepts: list[np.ndarray] = []
    for shard in sorted(numbers):
        for concept, rows in enumerate(read_bitmaps(folder / hits_name(shard))[manifest["mode"]]):
            own = numbers[shard][rows_of(rows)]
            owners.append(own[own >= 0])
            concepts.append(np.full(len(owners[-1]), concept, np.int32))
    owner, concept = np.concatenate(owners), np.concatenate(concepts)
    if not len(owner):
        raise InputError(
            f"{folder}: no sample that is trained on has a concept, so concepts cannot say which are drawn: correct "
            "concepts.kinds, the concepts, or the selection"
        )
    order = np.lexsort((concept, owner))
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(owner, minlength=len(selected)))])
    return ends, concept[order], np.maximum(np.bincount(concept), 1)
