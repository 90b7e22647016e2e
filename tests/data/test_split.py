from __future__ import annotations

import pytest

from flame_core.data.split import side, side_number


def test_the_caption_decides_apart_from_case_and_punctuation():
    assert side_number({"en": ["A frog."]}, None) == side_number({"en": ["a FROG", "more"], "de": ["x"]}, None)
    assert side_number({"en": ["A frog."]}, None) != side_number({"en": ["A toad."]}, None)
    assert side_number({"de": ["Ein Frosch"], "fr": ["x"]}, None) == side_number({"de": ["Ein Frosch"]}, None)


def test_a_group_decides_instead():
    assert side_number({"en": ["A"]}, "album") == side_number({"en": ["B"]}, "album")
    assert side_number({"en": ["album"]}, None) != side_number({"en": ["A"]}, "album")


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.2, 1.0])
def test_validation_gets_its_fraction_and_keeps_it(fraction):
    numbers = [side_number({"en": [f"caption {i}"]}, None) for i in range(4000)]
    val = {number for number in numbers if side(None, number, fraction) == "val"}
    assert len(val) / 4000 == pytest.approx(fraction, abs=0.02)
    assert val <= {number for number in numbers if side(None, number, min(1.0, fraction * 2)) == "val"}


def test_the_source_has_the_last_word():
    assert side("val", 2**64 - 1, 0.0) == "val"
    assert side("train", 0, 1.0) == "train"
