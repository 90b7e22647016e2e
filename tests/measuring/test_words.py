"""How words are used, and recall with fewer of them."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.captions.table import Caption
from flame_core.measuring.words import kept, word_metrics
from flame_core.params import EvaluateParams
from flame_core.text.store import unit

V, N = 100, 12


CAPTIONS = [Caption(i, f"k{i}", "raw", f"text {i}", "en", "source:x") for i in range(N)]


def test_planted_words_are_counted_and_few_are_enough():
    z = np.full((N, V), 0.01)
    z[:, 0] = 0.3  # in every picture
    z[np.arange(N), 1 + np.arange(N)] = 1.0  # its own
    z = unit(z).astype(np.float32)
    found = word_metrics(
        z, [caption.key for caption in CAPTIONS], CAPTIONS, lambda kind, texts: z[:, None], EvaluateParams(), 1
    )
    assert found["words/count"] == V and found["words/active"] == 2
    assert found["words/largest_use"] == 1 and found["words/never_active"] == pytest.approx((V - 1 - N) / V)
    assert found["words/all/words"] == V and found["words/top_64/words"] == 64 and found["words/active/words"] == 2
    assert "words/top_512/words" not in found
    for name in ("all", "active", "top_64"):
        assert found[f"words/{name}/recall@1"] == 1


def test_kept_words_are_the_heaviest():
    vectors = np.array([[0.1, 0.7, 0.2, 0.6]])
    assert kept(vectors, "all") is vectors
    assert kept(vectors, "active").tolist() == [[0, 0.7, 0, 0.6]]  # 1 / sqrt(4)
    assert kept(vectors, "top_3").tolist() == [[0, 0.7, 0.2, 0.6]]
