"""Text-to-text recall against a ranking by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.captions.table import Caption
from flame_core.measuring.ceilings import text_ceilings
from tests.measuring import world

ENGLISH = ["one", "two", "three"]
VECTORS = {
    "one": [1.0, 0.0], "two": [0.8, 0.6], "three": [0.0, 1.0], "another one": [-1.0, 0.0],
    "eins": [0.0, 1.0], "zwei": [0.8, 0.6], "drei": [0.1, 0.995],
}  # fmt: skip


def lookup(kind: str, texts: list[str]) -> np.ndarray:
    assert kind == "raw"
    return np.array([[VECTORS[text]] for text in texts], dtype=np.float32)


def test_captions_of_a_language_look_for_the_first_caption_of_their_picture(tmp_path):
    options = world.params(tmp_path, languages=["de", "fr"], recall_at=[1, 2, 3]).evaluate
    captions = [Caption(row, f"k{row}", "raw", text, "en", "made") for row, text in enumerate(ENGLISH)]
    captions += [Caption(0, "k0", "raw", "another one", "en", "made")]
    captions += [
        Caption(row, f"k{row}", "raw", text, "de", "made") for row, text in enumerate(["eins", "zwei", "drei"])
    ]
    captions += [Caption(3, "k3", "raw", "vier", "de", "made")]  # a picture without an English caption
    found = text_ceilings(options, captions, lookup)
    # German to English: `eins` ranks its picture last (0 against 0.6 and 1), `zwei` and `drei` rank theirs first.
    assert found["de"] == pytest.approx({"recall@1": 2 / 3, "recall@2": 2 / 3, "recall@3": 1.0})
    # English: `another one` is a second text of the first picture, and ranks it last.
    assert found["en"] == pytest.approx({"recall@1": 3 / 4, "recall@2": 3 / 4, "recall@3": 1.0})
    assert found.keys() == {"en", "de"}  # nothing is captioned in French
    assert text_ceilings(options, [c for c in captions if c.language == "de"], lookup) == {}


def test_equal_texts_are_looked_up_as_the_first_of_all_pictures_spells_them(tmp_path):
    options = world.params(tmp_path, languages=["de"], recall_at=[1]).evaluate
    captions = [Caption(row, f"k{row}", "raw", text, "en", "made") for row, text in enumerate(ENGLISH)]
    german = ["Eins!", "zwei", "drei"]
    captions = [Caption(3, "k3", "raw", "eins", "de", "made"), *captions]  # first, and without an English caption
    captions += [Caption(row, f"k{row}", "raw", text, "de", "made") for row, text in enumerate(german)]
    assert text_ceilings(options, captions, lookup)["de"] == pytest.approx({"recall@1": 2 / 3})
