"""The gate's rule on made-up results: what counts as worse, as better, and as luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flame_core.errors import InputError
from flame_core.measuring.estimates import OUTCOMES_SCHEMA
from flame_core.measuring.results import Results
from flame_core.params import PromoteParams
from flame_core.tracking.gate import MEAN, first_champion, judge, show

PICTURES = 200
CONFIDENCE = 0.95
RULE = PromoteParams(tolerance=0.02, min_gain=0.0)


def results(split: str = "s", **hits: np.ndarray) -> Results:
    """Results whose measures have these outcomes [pictures], one query a picture."""
    rows = [
        {"measure": name, "picture": picture, "sum": float(value), "queries": 1}
        for name, values in hits.items()
        for picture, value in enumerate(values)
    ]
    return Results("plain", {}, {}, PICTURES, split, pa.Table.from_pylist(rows, schema=OUTCOMES_SCHEMA))


def right(count: int, seed: int = 0) -> np.ndarray:
    """Outcomes of which `count` are right, at places that the seed decides."""
    values = np.zeros(PICTURES)
    values[np.random.default_rng(seed).permutation(PICTURES)[:count]] = 1
    return values


def verdicts(verdict) -> dict[str, str]:
    return {row.measure: row.verdict for row in verdict.differences}


def test_a_challenger_that_is_better_everywhere_is_promoted():
    verdict = judge(results(en=right(60), de=right(40)), results(en=right(100), de=right(80)), RULE, CONFIDENCE)
    assert verdict.promoted
    assert verdicts(verdict) == {MEAN: "better", "en": "better", "de": "better"}
    row = next(row for row in verdict.differences if row.measure == "en")
    assert (row.champion, row.challenger, row.difference) == (0.3, 0.5, 0.2)
    assert 0.1 < row.low < 0.2 < row.high < 0.3


def test_one_language_that_is_worse_stops_it_however_much_the_mean_rose():
    verdict = judge(results(en=right(60), de=right(60)), results(en=right(180), de=right(30)), RULE, CONFIDENCE)
    assert not verdict.promoted
    assert verdicts(verdict) == {MEAN: "better", "en": "better", "de": "worse"}
    assert "worse in 1 of 2 measures: de" in verdict.reason


def test_a_small_certain_loss_within_the_tolerance_is_let_through():
    champion, challenger = right(100), right(100)
    challenger[np.flatnonzero(challenger)[:3]] = 0  # 1.5 points, on the same pictures
    gained = results(en=challenger, de=right(90))
    assert judge(results(en=champion, de=right(60)), gained, RULE, CONFIDENCE).promoted
    strict = PromoteParams(tolerance=0.0)
    many = right(100)
    many[np.flatnonzero(many)[:12]] = 0
    assert not judge(results(en=champion, de=right(60)), results(en=many, de=right(90)), strict, CONFIDENCE).promoted


def test_a_loss_that_may_be_luck_is_not_worse_but_the_mean_must_not_fall():
    champion, challenger = results(en=right(60, seed=1)), results(en=right(55, seed=2))
    verdict = judge(champion, challenger, RULE, CONFIDENCE)
    assert verdicts(verdict)["en"] == "same"
    assert not verdict.promoted and "the mean over 1 held-out measures changed by -0.0250" in verdict.reason


def test_the_gain_that_params_ask_for():
    champion, challenger = results(en=right(60)), results(en=right(64))
    assert judge(champion, challenger, PromoteParams(min_gain=0.02), CONFIDENCE).promoted
    refused = judge(champion, challenger, PromoteParams(min_gain=0.03), CONFIDENCE)
    assert not refused.promoted
    assert refused.reason.endswith("changed by +0.0200, and promote.min_gain asks for +0.03")
    fell = judge(challenger, champion, PromoteParams(min_gain=-0.03, tolerance=0.1), CONFIDENCE)
    assert fell.promoted and "changed by -0.0200" in fell.reason


def test_only_shared_measures_are_compared_and_other_pictures_are_refused():
    champion = results(en=right(60), de=right(60))
    assert set(verdicts(judge(champion, results(en=right(60), fr=right(9)), RULE, CONFIDENCE))) == {MEAN, "en"}
    with pytest.raises(InputError, match="no measure in common"):
        judge(champion, results(fr=right(9)), RULE, CONFIDENCE)
    with pytest.raises(InputError, match="different pictures"):
        judge(champion, results(split="other", en=right(60)), RULE, CONFIDENCE)


def test_the_first_champion_needs_no_comparison():
    verdict = first_champion(results(en=right(60)), RULE, CONFIDENCE)
    assert verdict.promoted and "0.02" in verdict.rule and verdict.differences == []


def test_a_verdict_without_a_comparison_is_shown_without_a_table(capsys):
    show(first_champion(results(a=right(1)), RULE, CONFIDENCE))
    assert capsys.readouterr().out == "promoted: there was no champion to compare with\n"


def test_too_few_pictures_cannot_be_judged_and_are_no_first_champion_either():
    """All hits on all of ten pictures, where chance is 1 too: nothing got worse, and nothing was learned."""
    toy = results(en=np.where(np.arange(PICTURES) < 10, 1.0, np.nan))
    toy = replace(toy, outcomes=toy.outcomes.filter(pc.is_finite(toy.outcomes["sum"])), pictures=10)
    for verdict in (judge(toy, toy, RULE, CONFIDENCE), first_champion(toy, RULE, CONFIDENCE)):
        assert not verdict.promoted and verdict.outcome == "cannot judge"
        assert "10 pictures" in verdict.reason and "promote.min_pictures" in verdict.reason
    assert verdicts(judge(toy, toy, RULE, CONFIDENCE)) == {"en": "too few"}
    small = PromoteParams(min_pictures=10)
    assert judge(toy, toy, small, CONFIDENCE).promoted and first_champion(toy, small, CONFIDENCE).promoted


def test_a_measure_on_few_pictures_is_shown_and_neither_stops_nor_lifts():
    def with_french(hits: int, english: np.ndarray):
        french = np.full(PICTURES, np.nan)
        french[:20] = np.arange(20) < hits
        found = results(en=english, fr=french)
        return replace(found, outcomes=found.outcomes.filter(pc.is_finite(found.outcomes["sum"])))

    verdict = judge(with_french(20, right(60)), with_french(0, right(100)), RULE, CONFIDENCE)
    assert verdict.promoted and verdicts(verdict) == {MEAN: "better", "en": "better", "fr": "too few"}
    mean = next(row for row in verdict.differences if row.measure == MEAN)
    assert mean.difference == 0.2
    assert not judge(with_french(0, right(60)), with_french(20, right(30)), RULE, CONFIDENCE).promoted


def test_the_gate_of_two_measures_covers_what_separates_them():
    """Rare hits: one model that hits 1 % and one that hits 1 % differ in fewer than one of 20 trials, paired or not."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(100):
        draws = rng.random(PICTURES)
        old, new = (draws < 0.01).astype(float), ((draws + rng.choice([0, 0.5], PICTURES)) % 1 < 0.01).astype(float)
        found += judge(results(en=old), results(en=new), RULE, CONFIDENCE).differences
    assert np.mean([row.verdict == "same" for row in found]) >= 0.93
