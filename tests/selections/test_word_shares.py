"""Words before and after a selection, by decades of their frequency; the same of concepts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flame_core.captions.table import Caption, write_captions
from flame_core.codes.caption_words import by_frequency, word_counts
from flame_core.selections.word_shares import count_words, word_shares

TEXTS = {"a": ["a red dog", "the DOG runs"], "b": ["red car"], "c": ["cat"], "d": ["cat and dog"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        Caption(row, key, "raw", text, "en", "source:x")
        for row, (key, texts) in enumerate(TEXTS.items())
        for text in texts
    ]
    rows += [Caption(1, "b", "short", "zebra", "en", "metadata"), Caption(2, "c", "raw", "Katze", "de", "source:x")]
    write_captions(tmp_path / "00000.parquet", rows[:3])
    write_captions(tmp_path / "00001.parquet", rows[3:])
    return tmp_path


def test_a_word_counts_once_per_sample_and_only_in_raw_captions_of_the_language(folder):
    found = word_counts(folder, "en")
    assert found == Counter({"dog": 2, "red": 2, "cat": 2, "the": 1, "runs": 1, "car": 1, "and": 1})
    assert by_frequency(found) == ["cat", "dog", "red", "and", "car", "runs", "the"]


def test_counts_of_selections(folder):
    everywhere, within = count_words(folder, "en", {"x": {"a", "c"}, "none": set()})
    assert everywhere == word_counts(folder, "en")
    assert within["x"] == Counter({"dog": 1, "red": 1, "cat": 1, "the": 1, "runs": 1}) and not within["none"]


def test_decades_and_the_words_that_change_most():
    everywhere = Counter({"common": 120, "usual": 40, "rare": 8, "gone": 2})
    within = {"half": Counter({"common": 40, "usual": 30, "rare": 4})}
    found = word_shares(everywhere, within, {"half": 0.5})
    assert [(each.low, each.high, each.words) for each in found.decades] == [(1, 9, 2), (10, 99, 1), (100, 999, 1)]
    assert [each.left["half"] for each in found.decades] == [0.5, 1.0, 1.0]
    assert [each.rate["half"] for each in found.decades] == pytest.approx([4 / 10 / 0.5, 1.5, 40 / 120 / 0.5])
    assert [word for word, _, _ in found.raised["half"]] == ["usual"]
    assert [word for word, _, _ in found.lowered["half"]] == ["common"]
    assert word_shares(Counter(), {"x": Counter()}, {"x": 0.5}).decades == []


def test_concepts_are_counted_from_the_hits_of_their_stage(tmp_path, monkeypatch):
    from pyroaring import BitMap

    from flame_core.concepts.bitmaps import write_bitmaps
    from flame_core.concepts.concept_list import Concept, ConceptList
    from flame_core.selections import word_shares as module

    class Found:
        concepts = ConceptList([Concept("cat", ("cat",), ("file",)), Concept("dog", ("dog",), ("file",))])
        mode = "phrase"

    (tmp_path / "hits").mkdir()
    write_bitmaps(tmp_path / "hits/00000.safetensors", {"phrase": [BitMap([0, 2]), BitMap([])]})
    write_bitmaps(tmp_path / "hits/00001.safetensors", {"phrase": [BitMap([1]), BitMap([0, 1])]})
    monkeypatch.setattr(module, "read_frequencies", lambda folder: Found())
    places = {"train/00000.tar": np.arange(3), "train/00001.tar": np.arange(3, 5)}
    holds = {"x": np.array([True, False, False, False, True])}
    everywhere, within = module.count_concepts(tmp_path, places, holds)
    assert everywhere == Counter({"cat": 3, "dog": 2}) and within["x"] == Counter({"cat": 2, "dog": 1})
