from __future__ import annotations

import pytest

from flame_core.captions.captioner import Failure, one_each
from flame_core.captions.summary import check, summarise
from flame_core.captions.table import Caption
from flame_core.params import CaptionGates
from tests.captions.pictures import sample


def checks(shards, **gates):
    """Checks by name of shards given as {shard: {key: short caption or Failure}}, all with the raw caption `raw`."""
    summaries, index = {}, {}
    for shard, texts in shards.items():
        samples = [sample(key, captions={"en": ["raw"], "de": ["roh"]}) for key in texts]
        rows = [Caption(i, key, "raw", text, language, "source:x")
                for i, key in enumerate(texts) for language, text in (("en", "raw"), ("de", "roh"))]  # fmt: skip
        summaries[shard] = summarise(samples, rows, {"short": one_each(list(texts.values()))})
        index[shard] = list(texts)
    return {one.name: one for one in check(CaptionGates(**gates), summaries, index)}


def test_a_caption_that_repeats_a_raw_one_in_any_language_is_copied():
    found = checks({"a": {"k1": "raw", "k2": "roh", "k3": "new", "k4": "other"}}, max_identical_fraction=0.4)
    assert (found["short_copied"].value, found["short_copied"].keys) == (0.5, ["k1", "k2"])
    assert not found["short_copied"].passed
    assert checks({"a": {"k1": "raw", "k2": "x"}}, max_identical_fraction=0.5)["short_copied"].passed


def test_repeated_counts_the_most_frequent_caption_of_each_shard_but_not_single_ones():
    shards = {"a": {"k1": "x", "k2": "x", "k3": "y"}, "b": {"k4": "x"}, "c": {"k5": "u", "k6": "v"}}
    found = checks(shards)["short_repeated"]
    assert (found.value, found.keys) == (pytest.approx(2 / 6), ["k1", "k2"])


def test_of_several_captions_the_first_is_compared_and_all_count_as_words():
    samples = [sample(key, captions={"en": ["raw"]}) for key in ("a", "b", "c")]
    written = [["one", "raw"], ["raw", "of three words"], Failure("no")]
    found = {one.name: one for one in check(CaptionGates(), {"s": summarise(samples, [], {"long": written})}, {})}
    assert (found["long_copied"].value, found["long_copied"].keys) == (pytest.approx(1 / 3), ["b"])
    assert (found["long_failed"].value, found["long_repeated"].value) == (pytest.approx(1 / 3), 0)
    assert found["caption_words"].value == {"long": {"min": 1, "mean": 1.5, "max": 3}}


def test_words_and_languages_are_counted_over_shards_and_failures_left_out():
    shards = {"a": {"k1": "one", "k2": "one two three"}, "b": {"k3": Failure("no")}, "c": {"k4": "one two three four"}}
    found = checks(shards)
    assert found["caption_words"].value == {"short": {"min": 1, "mean": pytest.approx(8 / 3), "max": 4}}
    assert found["raw_languages"].value == {"en": 4, "de": 4}
    assert (found["short_failed"].value, found["short_failed"].keys) == (0.25, ["k3"])


def test_samples_without_a_raw_caption_or_out_of_the_index_block():
    samples = [sample("a", captions={}), sample("b")]
    summary = summarise(samples, [], {})
    found = {one.name: one for one in check(CaptionGates(), {"s": summary}, {"s": ["a", "b"], "t": ["c"]})}
    assert (found["raw_present"].passed, found["raw_present"].keys) == (False, ["a"])
    assert (found["samples_present"].passed, found["samples_present"].keys) == (False, ["t"])
