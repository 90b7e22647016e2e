from __future__ import annotations

import numpy as np
import pytest

from flame_core.suite.score import over_languages
from flame_core.suite.tasks import retrieval
from flame_core.suite.tasks.retrieval import RetrievalParams, RetrievalTask
from tests.suite.datasets import captioned, vectors


def task(**changes) -> RetrievalParams:
    return RetrievalParams.model_validate({"kind": "retrieval", **changes})


def test_a_hand_made_matrix_with_several_captions():
    """Three pictures with 2, 1 and 1 captions; scores are written down below."""
    scores = np.array(
        [  # texts: 0a   0b   1a   2a
            [0.1, 0.9, 0.5, 0.3],  # picture 0: 0b first -> hit at 1
            [0.8, 0.2, 0.7, 0.9],  # picture 1: 1a is third
            [0.4, 0.3, 0.2, 0.1],  # picture 2: 2a is fourth
        ],
        dtype=np.float32,
    )
    found = retrieval.score_language(
        task(recall_at=[1, 2, 3]), captioned([2, 1, 1]), "en", scores, lambda texts: np.eye(4, dtype=np.float32),
    )  # fmt: skip
    assert found is not None
    assert found.metrics["text_retrieval_recall@1"] == pytest.approx(1 / 3)
    assert found.metrics["text_retrieval_recall@3"] == pytest.approx(2 / 3)
    # texts: 0a -> pictures by score 1, 2, 0; 0b -> 0, 2, 1; 1a -> 1, 0, 2; 2a -> 1, 0, 2
    assert found.metrics["image_retrieval_recall@1"] == pytest.approx(2 / 4)
    assert found.metrics["image_retrieval_recall@2"] == pytest.approx(2 / 4)
    assert found.metrics["image_retrieval_recall@3"] == 1
    assert found.facts["image_retrieval_median_rank"] == 2  # ranks 3, 1, 1, 3
    assert found.facts["text_retrieval_median_rank"] == 3  # ranks 1, 3, 4
    assert found.chance["image_retrieval_recall@1"] == pytest.approx(1 / 3)
    assert found.chance["text_retrieval_recall@1"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)


def test_ties_give_chance_in_any_order():
    same = np.ones((5, 2), dtype=np.float32)
    found = retrieval.score_language(
        task(), captioned([2, 3, 1, 1, 2]), "en", same, lambda texts: np.ones((len(texts), 2), np.float32)
    )
    assert found is not None
    for name, value in found.metrics.items():
        assert value == pytest.approx(found.chance[name])


def test_the_first_caption_alone_where_the_protocol_says_so():
    content = captioned([3, 2])
    assert retrieval.used_captions(task(captions="first"), content, "en") == [(0, "en 0 0"), (1, "en 1 0")]
    assert RetrievalTask().texts(task(captions="first"), content) == ["en 0 0", "en 1 0"]
    assert len(RetrievalTask().texts(task(), content)) == 5


def test_a_language_without_captions_has_no_score():
    content = captioned([1, 1])
    content.captions["de"] = []
    assert retrieval.score_language(task(), content, "de", vectors(2), vectors) is None


def test_the_mean_over_languages_is_plain_and_its_interval_knows_that_pictures_are_shared():
    content = captioned([1] * 30, ("en", "de"))
    z = vectors(30)
    noisy = {"en": 0.05, "de": 3.0}

    def encode(texts):
        language = texts[0].split()[0]
        noise = vectors(30, seed=7)
        return z + noisy[language] * noise

    scores = [retrieval.score_language(task(), content, code, z, encode) for code in ("en", "de")]
    mean = over_languages(scores)
    name = "text_retrieval_recall@1"
    assert scores[0].metrics[name] > scores[1].metrics[name]
    assert mean.metrics[name] == pytest.approx((scores[0].metrics[name] + scores[1].metrics[name]) / 2)
    influences = [score.means[name].influence for score in scores]
    np.testing.assert_allclose(mean.means[name].influence, (influences[0] + influences[1]) / 2)
    low, high = mean.intervals(0.95)[name]
    assert low < mean.metrics[name] < high


def test_intervals_cover_the_spread_of_a_mean_over_independent_pictures():
    """With one caption per picture, recall is a mean of independent outcomes: the binomial interval is the oracle."""
    z = vectors(400, 8)
    t = z + 1.2 * vectors(400, 8, seed=3)
    found = retrieval.score_language(task(), captioned([1] * 400), "en", z, lambda _: t)
    p = found.metrics["text_retrieval_recall@10"]
    low, high = found.intervals(0.95)["text_retrieval_recall@10"]
    spread = 1.96 * (p * (1 - p) / 400) ** 0.5
    assert high - low == pytest.approx(2 * spread, rel=0.15)
