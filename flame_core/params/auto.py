"""`auto`: sizes that follow from the number of pictures. These are the only rules; docs/params.md has them as a table.

`ingest` chooses its own from the number of pairs that the sources list, `train` from the number of samples that a
recipe trains on. A rule reads counts only, so every machine chooses the same. Warnings of `flame params check` about
params that do not fit the data name the values of the same rules.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, NamedTuple

# 1, 2 or 5 over a power of ten: with more data the share changes seldom, and a smaller one holds out a part of the same
_SHARES = tuple(digit / 10**power for power in range(5, 0, -1) for digit in (1, 2, 5))
_MOST_HELD_OUT = 0.2
_FEW_PAIRS, _OF_FEW = 100, 0.3  # below so many pairs, a fifth is too few to measure
_HELD_OUT_SHARE, _ENOUGH_HELD_OUT = 0.02, 5000
_SHARDS, _SMALLEST_SHARD, _LARGEST_SHARD = 8, 16, 4096
_STEPS_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH = 4, 8, 1024
_FEWEST_EPOCHS, _MOST_EPOCHS = 20, 100
_SEEN, _STEPS = 14_000, 100  # pictures and steps of a whole training, at least
_WARMUP_SHARE, _LONGEST_WARMUP = 10, 2000


class Schedule(NamedTuple):
    """The lengths of a training.

    Attributes:
        batch_size: pictures per step, at most as many as there are.
        epochs: over all samples but the last that fill no batch.
        warmup_steps: of the learning rate.
        steps_per_epoch: at least 1.
    """

    batch_size: int
    epochs: int
    warmup_steps: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch


class IngestSizes(NamedTuple):
    """The share of pairs that is held out, and the mean number of samples per shard."""

    val_fraction: float
    shard_samples: int


Auto = Literal["auto"]


def schedule(samples: int, batch_size: int | Auto, epochs: int | Auto, warmup_steps: int | Auto) -> Schedule:
    """The lengths of a training on so many samples, with values in place of `auto`."""
    batch = fitting_batch(samples) if batch_size == "auto" else batch_size
    batch = min(batch, max(samples, 1))
    per_epoch = max(samples, 1) // batch
    rounds = fitting_epochs(samples, per_epoch) if epochs == "auto" else epochs
    warmup = fitting_warmup(rounds * per_epoch) if warmup_steps == "auto" else warmup_steps
    return Schedule(batch, rounds, warmup, per_epoch)


def ingest_sizes(pairs: int, val_fraction: float | Auto, shard_samples: int | Auto) -> IngestSizes:
    """The sizes of `ingest` for so many listed pairs, with values in place of `auto`."""
    return IngestSizes(
        fitting_val_fraction(pairs) if val_fraction == "auto" else val_fraction,
        fitting_shard(pairs) if shard_samples == "auto" else shard_samples,
    )


def fitting_batch(samples: int) -> int:
    """A quarter of the samples, so that an epoch has at least four steps, rounded down to a power of two.

    At most 1,024, and at least 8 (of fewer than 16 samples, half of them; at least 2).
    """
    wanted = max(samples / _STEPS_PER_EPOCH, min(_SMALLEST_BATCH, samples / 2), 2)
    return min(_power_of_two(int(wanted)), _LARGEST_BATCH)


def fitting_epochs(samples: int, steps_per_epoch: int) -> int:
    """As many as 14,000 pictures seen and 100 steps take, from 20 to 100."""
    wanted = max(_FEWEST_EPOCHS, math.ceil(_SEEN / max(samples, 1)), math.ceil(_STEPS / max(steps_per_epoch, 1)))
    return min(wanted, _MOST_EPOCHS)


def fitting_warmup(steps: int) -> int:
    """A tenth of all steps, at most 2,000."""
    return min(steps // _WARMUP_SHARE, _LONGEST_WARMUP)


def fitting_val_fraction(pairs: int) -> float:
    """The smallest of 0.00001, 0.00002, 0.00005, 0.0001, ... 0.2 that holds out enough pairs.

    Enough is 2 % of all, but at least what an interval of +- 5 points takes (385 at 95 %) and at most 5,000. If 0.2
    does not suffice, it is 0.2; of fewer than 100 pairs 0.3.
    """
    if pairs < _FEW_PAIRS:
        return _OF_FEW
    wanted = min(max(_HELD_OUT_SHARE * pairs, pictures_needed(0.05, 0.95)), _ENOUGH_HELD_OUT)
    return next((share for share in _SHARES if share * pairs >= wanted and share <= _MOST_HELD_OUT), _MOST_HELD_OUT)


def fitting_shard(pairs: int) -> int:
    """The power of two nearest to an eighth of the pairs, from 16 to 4,096: shards are worked on in parallel."""
    share = max(pairs // _SHARDS, 1)
    below = _power_of_two(share)
    nearest = below if share**2 <= 2 * below**2 else 2 * below
    return min(max(nearest, _SMALLEST_SHARD), _LARGEST_SHARD)


def _power_of_two(number: int) -> int:
    """The largest one that is not above the number."""
    return 1 << (number.bit_length() - 1)


def pictures_needed(half_width: float, confidence: float) -> int:
    """Pictures for an interval of +- `half_width` around a share of one half, where it is widest: z^2 / (4 h^2)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return math.ceil((z / (2 * half_width)) ** 2 - 1e-9)
