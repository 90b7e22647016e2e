"""What `auto` chooses: the rules, by literal values, and by what they promise for every count."""

from __future__ import annotations

import math

import pytest

from flame_core.digest import value_digest
from flame_core.params import IngestParams, TrainParams
from flame_core.params.auto import (
    fitting_batch,
    fitting_epochs,
    fitting_shard,
    fitting_val_fraction,
    fitting_warmup,
    pictures_needed,
    schedule,
)

COUNTS = sorted({*range(1, 300), *(int(1.2**power) for power in range(31, 105))})
AUTO = {"batch_size": "auto", "epochs": "auto", "warmup_steps": "auto"}


@pytest.mark.parametrize(
    ("samples", "batch", "epochs", "warmup"),
    [
        (2, 2, 100, 10),  # one step per epoch
        (14, 4, 100, 30),
        (51, 8, 100, 60),  # of 64 pictures
        (735, 128, 20, 10),  # the demo, whose own params have 128, 20, 20
        (1_200, 256, 25, 10),  # 4 steps per epoch
        (6_000, 1024, 20, 10),
        (2_900_000, 1024, 20, 2000),  # CC3M
    ],
)
def test_a_training_by_its_number_of_samples(samples, batch, epochs, warmup):
    chosen = TrainParams.model_validate(AUTO).schedule(samples)
    assert (chosen.batch_size, chosen.epochs, chosen.warmup_steps) == (batch, epochs, warmup)


@pytest.mark.parametrize(
    ("pairs", "share", "shard"),
    [
        (20, 0.3, 16),
        (64, 0.3, 16),
        (99, 0.3, 16),
        (100, 0.2, 16),
        (952, 0.2, 128),  # as the demo's own params
        (1_925, 0.2, 256),
        (3_850, 0.1, 512),  # 385 pictures
        (8_091, 0.05, 1024),
        (3_300_000, 0.002, 4096),  # as the preset of CC3M
        (15_100_000, 0.0005, 4096),  # as the preset of YFCC15M
    ],
)
def test_ingest_by_its_number_of_pairs(pairs, share, shard):
    chosen = IngestParams.model_validate({"val_fraction": "auto", "shard_samples": "auto"}).sizes(pairs)
    assert chosen == (share, shard)


def test_what_the_rules_promise_for_every_number_of_samples():
    for samples in COUNTS:
        batch = fitting_batch(samples)
        assert batch & (batch - 1) == 0 and 2 <= batch <= 1024
        if samples >= 32:
            assert samples // batch >= 4
        if 32 <= samples < 4096:
            assert batch > samples / 8  # rounded down by less than half
        chosen = schedule(samples, "auto", "auto", "auto")
        assert 20 <= chosen.epochs <= 100 and chosen.steps_per_epoch == max(1, samples // chosen.batch_size)
        if chosen.epochs < 100:
            assert chosen.epochs * samples >= 14_000 and chosen.steps >= 100
        assert chosen.warmup_steps == min(chosen.steps // 10, 2000) < chosen.steps


def test_what_the_rules_promise_for_every_number_of_pairs():
    for pairs in COUNTS:
        share, shard = fitting_val_fraction(pairs), fitting_shard(pairs)
        assert share <= (0.3 if pairs < 100 else 0.2)
        if pairs >= 1925:
            assert share * pairs >= 385 and 2.5 * min(max(385, 0.02 * pairs), 5000) >= share * pairs * (1 - 1e-9)
        assert shard & (shard - 1) == 0 and 16 <= shard <= 4096
        if 128 <= pairs <= 8 * 4096:
            assert abs(math.log2(shard) - math.log2(pairs / 8)) <= 0.5 + 0.1  # pairs are not always a multiple of 8


def test_more_pairs_never_hold_out_a_larger_share():
    shares = [fitting_val_fraction(pairs) for pairs in COUNTS]
    assert shares == sorted(shares, reverse=True)


def test_values_that_are_given_are_kept_and_decide_the_others():
    chosen = schedule(51, 128, "auto", "auto")
    assert chosen == (51, 100, 10, 1)  # a batch of all pictures: one step per epoch
    chosen = schedule(51, "auto", 5, "auto")
    assert (chosen.batch_size, chosen.epochs, chosen.steps, chosen.warmup_steps) == (8, 5, 30, 3)
    assert schedule(51, 16, 5, 40) == (16, 5, 40, 3)
    assert (fitting_epochs(51, 6), fitting_warmup(600)) == (100, 60)


def test_how_many_pictures_an_interval_takes():
    assert (pictures_needed(0.1, 0.95), pictures_needed(0.05, 0.95)) == (97, 385)
    for half_width in (0.02, 0.05, 0.1):
        n = pictures_needed(half_width, 0.95)
        assert 1.959964 * math.sqrt(0.25 / n) <= half_width < 1.959964 * math.sqrt(0.25 / (n - 1))


def test_a_fitted_recipe_is_the_recipe_with_the_values_written_out():
    written = TrainParams.model_validate({**AUTO, "texts_per_image": 2})
    assert written.automatic == ["batch_size", "epochs", "warmup_steps"]
    fitted = written.fitted(761)
    plain = TrainParams.model_validate({"batch_size": 128, "epochs": 20, "warmup_steps": 10, "texts_per_image": 2})
    assert fitted == plain and value_digest(fitted.identity) == value_digest(plain.identity)
    assert fitted.dump() == plain.dump() and not fitted.automatic
    assert plain.fitted(51) is plain


def test_only_the_named_params_may_be_auto():
    for name in ("batch_size", "epochs", "warmup_steps"):
        assert TrainParams.model_validate({name: "auto"}).automatic == [name]
    for name in ("val_fraction", "shard_samples"):
        assert IngestParams.model_validate({name: "auto"}).automatic == [name]
    for name in ("texts_per_image", "seed", "micro_batch_size"):
        with pytest.raises(ValueError, match=name):
            TrainParams.model_validate({name: "auto"})
