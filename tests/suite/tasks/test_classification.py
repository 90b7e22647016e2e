from __future__ import annotations

import numpy as np
import pytest

from flame_core.suite.content import Labelled
from flame_core.suite.score import ClassScore, over_languages
from flame_core.suite.tasks import classification
from flame_core.suite.tasks.classification import ClassificationParams, ClassificationTask
from flame_core.text.store import unit
from tests.suite.datasets import vectors


def task(**changes) -> ClassificationParams:
    return ClassificationParams.model_validate({"kind": "classification", **changes})


def test_hand_made_scores_with_a_tie_and_a_class_without_pictures():
    z = np.array([[0.9, 0.1, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0, 0], [0.5, 0.5, 0.1, 0, 0, 0], [0.4, 0.3, 0, 0, 0, 0]])
    labels = np.array([0, 1, 1, 1])
    found = classification.score_labels("", "en", z.astype(np.float32), np.eye(6, dtype=np.float32), labels)
    assert found.metrics["acc1"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert found.metrics["acc5"] == 1
    assert found.metrics["mean_per_class_recall"] == pytest.approx((1 + 0.5) / 2)  # classes 2 to 5 have no picture
    assert found.classes == []
    named = classification.score_labels("", "en", z.astype(np.float32), np.eye(6, dtype=np.float32), labels, "abcdef")
    assert named.classes == [ClassScore("a", 1, 1.0), ClassScore("b", 3, 1.5)] and named.metrics == found.metrics
    assert found.chance == {"acc1": 1 / 6, "acc5": 5 / 6, "mean_per_class_recall": 1 / 6}


def test_fewer_than_five_classes_have_no_top_5():
    found = classification.score_labels("lp_", "en", vectors(3, 4), np.eye(4, dtype=np.float32), np.arange(3))
    assert set(found.metrics) == {"lp_acc1", "lp_mean_per_class_recall"}


def test_a_class_is_the_normalised_mean_of_its_normalised_prompts():
    asked = []

    def encode(texts):
        asked.append(list(texts))
        return np.stack([(1 + i) * vectors(1, seed=len(text))[0] for i, text in enumerate(texts)])

    content = Labelled([], np.array([0, 1]), {"en": ["cat", "horse"]}, {"en": ["a {c}", "the {c} itself"]})
    definition = task()
    rows = classification.prompts(content.names["en"], classification.templates_of(definition, content, "en"))
    t = classification.class_vectors(rows, encode)
    assert asked == [["a cat", "the cat itself"], ["a horse", "the horse itself"]]
    expected = [unit(vectors(1, seed=len(a))[0] + vectors(1, seed=len(b))[0]) for a, b in rows]
    np.testing.assert_allclose(t, expected, atol=1e-6)
    assert ClassificationTask().texts(definition, content) == [text for row in rows for text in row]


def test_templates_of_the_benchmark_come_before_those_of_the_data():
    content = Labelled([], np.array([0]), {"en": ["x"], "de": ["y"]}, {"en": ["data {c}"], "de": ["Daten {c}"]})
    definition = task(templates={"en": ["own {c}"]})
    assert ClassificationTask().texts(definition, content) == ["own x", "Daten y"]
    assert ClassificationTask().texts(task(), Labelled([], np.array([0]), {"en": ["bare name"]})) == ["bare name"]


def test_the_interval_of_mean_per_class_recall_is_that_of_classes_of_their_own():
    """The variance is the mean's over independent classes, each with the variance of its pictures' hits."""
    labels = np.repeat([0, 1, 2], [100, 300, 50])
    z = vectors(450, 3, seed=5)
    found = classification.score_labels("", "en", z, np.eye(3, dtype=np.float32), labels)
    hit = (z.argmax(axis=1) == labels).astype(float)
    spread = sum(hit[labels == c].var(ddof=1) / (labels == c).sum() for c in range(3)) ** 0.5 / 3
    low, high = found.intervals(0.95)["mean_per_class_recall"]
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.06)


def test_a_language_that_names_some_classes_is_about_these_only():
    content = Labelled([], np.array([0, 1, 2, 1]), {"en": list("abc"), "de": ["zwei", "null"]}, parts={"de": [2, 0]})
    z = np.eye(3, dtype=np.float32)[[0, 1, 0, 1]]  # the third picture looks like class 0
    own = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1], "null": [1, 0, 0], "zwei": [0, 0, 1]}

    def encode(texts):
        return np.array([own[text] for text in texts], dtype=np.float32)

    english = classification.score_language(task(), content, "en", z, encode)
    german = classification.score_language(task(), content, "de", z, encode)
    assert english is not None and german is not None
    assert english.metrics["acc1"] == 3 / 4 and german.metrics["acc1"] == 1 / 2
    assert german.facts == {"pictures": 2, "classes": 2} and german.chance["acc1"] == 1 / 2
    assert german.means["acc1"].weights.tolist() == [0.5, 0, 0.5, 0]
    both = over_languages([english, german])
    assert both.metrics["acc1"] == 5 / 8
    assert both.means["acc1"].weights == pytest.approx([3 / 8, 1 / 8, 3 / 8, 1 / 8])
    assert classification.score_language(task(), Labelled([], np.array([1]), {}, parts={}), "de", z[:1], encode) is None


def test_openai_placeholders_are_ours():
    assert task(templates={"en": ["a photo of a {}.", "{c} in {}"]}).templates == {
        "en": ["a photo of a {c}.", "{c} in {}"]
    }
    with pytest.raises(ValueError, match=r"must contain {c} or {}"):
        task(templates={"en": ["a photo"]})
