from __future__ import annotations

import numpy as np
import pytest

from flame_core.suite.content import Question, Questions
from flame_core.suite.tasks import choice
from flame_core.suite.tasks.choice import ChoiceParams


def chosen(scores, ties: str) -> tuple[bool, bool]:
    """The scores themselves as pictures against unit vectors, so that inner products are the scores."""
    scores = np.array(scores, np.float32)
    return choice.chosen(scores, np.eye(scores.shape[1], dtype=np.float32), ties)


def task(ties: str = "wrong") -> ChoiceParams:
    return ChoiceParams.model_validate({"kind": "choice", "ties": ties})


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[2, 1], [1, 2]], True, True),
        ([[2, 1], [4, 5]], True, False),  # text 0 prefers picture 1
        ([[2, 4], [1, 5]], False, True),  # picture 0 prefers text 1
        ([[1, 2], [2, 1]], False, False),
        ([[2, 2], [1, 3]], False, True),  # picture 0 cannot tell the texts apart
        ([[1, 1], [1, 1]], False, False),
    ],
)
def test_winogrounds_scores(scores, text, image):
    assert chosen(scores, "wrong") == (text, image)


def test_ties_count_for_the_first_only_where_the_protocol_says_so():
    tied = np.array([[1.0, 1.0]])  # one picture, right and wrong text
    assert chosen(tied, "wrong")[0] is False
    assert chosen(tied, "first")[0] is True
    assert chosen([[1.0, 1.0], [1.0, 1.0]], "first") == (False, False)  # the second is not first
    for scores in np.random.default_rng(0).integers(0, 3, (200, 2, 2)):
        expected = (list(scores.argmax(1)) == [0, 1], list(scores.argmax(0)) == [0, 1])  # CLIP_benchmark's rule
        assert chosen(scores, "first") == expected


def test_groups_are_scored_apart_and_the_mean_is_plain():
    """Group a: 1 of 3 right; group b: 1 of 1 right. One picture, two texts each."""
    questions = [Question(f"a{i}", "a", (0,), (f"right {i}", f"wrong {i}")) for i in range(3)]
    questions.append(Question("b0", "b", (1,), ("right 0", "wrong 1")))
    good = {"right 0": 2.0, "wrong 0": 1.0, "right 1": 1.0, "wrong 1": 1.0, "right 2": 0.0, "wrong 2": 1.0}

    def encode(texts):
        return np.array([[good[text]] for text in texts], dtype=np.float32)

    content = Questions([None, None], questions)  # pictures are not read
    found = choice.score_questions(task(), content, "en", np.ones((2, 1), np.float32), encode)
    assert found.metrics == {
        "text_acc": pytest.approx(2 / 3), "a/text_acc": pytest.approx(1 / 3), "b/text_acc": 1.0,
    }  # fmt: skip
    assert found.chance["text_acc"] == 0.5
    first = choice.score_questions(task("first"), content, "en", np.ones((2, 1), np.float32), encode)
    assert first.metrics["a/text_acc"] == pytest.approx(2 / 3)  # the tie counts


def test_chance_of_winoground_by_simulation():
    content = Questions([], [Question("q", "winoground", (0, 1), ("x", "y"))])
    chance = choice._chances(content)
    rng = np.random.default_rng(0)
    outcomes = np.array([chosen(scores, "wrong") for scores in rng.normal(size=(20000, 2, 2))])
    assert chance["text_acc"] == pytest.approx(outcomes[:, 0].mean(), abs=0.01)
    assert chance["image_acc"] == pytest.approx(outcomes[:, 1].mean(), abs=0.01)
    assert chance["acc"] == pytest.approx(outcomes.all(axis=1).mean(), abs=0.01)
