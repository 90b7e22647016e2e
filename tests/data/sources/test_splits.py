from __future__ import annotations

import numpy as np
import pytest

from flame_core.data.sources.splits import split_of


@pytest.mark.parametrize("word", ["train", "Train", " TRAINING ", "restval"])
def test_words_for_training(word: str):
    assert split_of([word]) == "train"


@pytest.mark.parametrize("word", ["val", "Val", "valid", "validation", "VALIDATION\n", "dev"])
def test_words_for_validation(word: str):
    assert split_of([word]) == "val"


@pytest.mark.parametrize(
    ("value", "word"),
    [("test", "test"), (" Test  2014 ", "test 2014"), (0, "0"), (2.0, "2.0"), (True, "true"), (["train"], "['train']")],
)
def test_other_words_stay_what_they_are(value: object, word: str):
    assert split_of([value]) == word


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), np.float64("nan")])
def test_nothing_is_said(value: object):
    assert split_of([value]) is None
    assert split_of([value, "val"]) == "val"


def test_records_of_one_picture_must_agree():
    assert split_of([]) is None
    assert split_of(["val", "Validation", None]) == "val"
    assert split_of(["train", "test"]) == "train, test"
    assert split_of(["val", "train"]) == "val, train"


def test_a_long_word_is_cut():
    assert split_of(["x" * 10_000]) == "x" * 80
