"""Compositional choice: Winoground's three scores and SugarCrepe's tasks.

`text_acc`: each picture finds its text among the texts of its question; `image_acc`: each text finds its picture;
`acc`: both (Winoground's group score). If questions have one picture and two texts, there is only `text_acc`. A tie is
wrong, unless the benchmark has `ties: first`, as in CLIP_benchmark, whose argmax takes the first of equals. If there
are several groups, every metric is given for each, as `<group>/<metric>`, and as their unweighted mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import comb
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from flame_core.measuring.intervals import by_picture, mean_of, ratio
from flame_core.measuring.similarity import resolution, similarities
from flame_core.suite.content import Questions
from flame_core.suite.encoding import Vectors
from flame_core.suite.score import Score, Texts
from flame_core.suite.tasks.task import Asked, Task, TaskParams


class ChoiceParams(TaskParams):
    """Pictures and texts that differ only slightly: which belong together (Winoground, SugarCrepe)?"""

    kind: Literal["choice"]
    ties: Literal["wrong", "first"] = Field(
        default="wrong",
        description="`first`: of tied answers, the first is chosen, as by CLIP_benchmark's argmax",
    )


class ChoiceTask(Task[ChoiceParams, Questions]):
    """Which text belongs to which picture? The questions are in one language."""

    params = ChoiceParams
    wanted = Questions
    wanted_is = "pictures and texts to be matched"
    exported_as = "image_caption_selection"
    one_language = True
    titles: ClassVar[Mapping[str, str]] = {
        "text_acc": "right text",
        "image_acc": "right picture",
        "acc": "both right",
    }

    def texts(self, params: ChoiceParams, content: Questions) -> list[str]:
        return distinct_texts(content)

    def measure(self, asked: Asked[ChoiceParams, Questions], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        (language,) = asked.languages
        yield language, score_questions(asked.params, asked.content, language, *vectors.paired(asked.content.pictures))

    def headline(self, params: ChoiceParams) -> list[str]:
        return list(self.titles)

    def counts_ties(self, params: ChoiceParams) -> bool:
        return params.ties == "first"


def distinct_texts(content: Questions) -> list[str]:
    """The texts of all questions, each once."""
    return list(dict.fromkeys(text for question in content.questions for text in question.texts))


def chosen(pictures: np.ndarray, texts: np.ndarray, ties: str) -> tuple[bool, bool]:
    """(each picture chose its text, each text chose its picture) in one question, pictures [P, D], texts [T, D]."""
    return _rows_right(pictures, texts, ties), _rows_right(texts, pictures, ties)


def _rows_right(queries: np.ndarray, candidates: np.ndarray, ties: str) -> bool:
    scores, resolved = similarities(queries, candidates), resolution(queries, candidates)
    for own in range(min(scores.shape)):
        above = scores[own] - scores[own, own]
        others = np.delete(above, own)
        equals = above[:own] if ties == "first" else others  # candidates that must score less than the right one
        if (others > resolved[own]).any() or (equals >= -resolved[own]).any():
            return False
    return True


def score_questions(params: ChoiceParams, content: Questions, language: str, z: np.ndarray, encode: Texts) -> Score:
    """The accuracies; in their intervals, questions about the same picture count as dependent.

    Args:
        params: determine how ties count.
        content: pictures and questions.
        language: of the texts.
        z: [N, D] of all pictures.
        encode: texts to [T, D].
    """
    distinct = distinct_texts(content)
    number = {text: index for index, text in enumerate(distinct)}
    t = encode(distinct)
    outcomes = []
    for question in content.questions:
        asked = z[list(question.pictures)], t[[number[text] for text in question.texts]]
        outcomes.append(chosen(*asked, params.ties))
    text_right, image_right = np.array(outcomes, dtype=float).T
    two_way = all(len(question.pictures) > 1 for question in content.questions)
    values = {"text_acc": text_right}
    if two_way:
        values |= {"image_acc": image_right, "acc": text_right * image_right}
    score = Score(language, facts={"questions": len(content.questions), "pictures": len(content.pictures)})
    owners = np.array([question.pictures[0] for question in content.questions])
    groups = list(dict.fromkeys(question.group for question in content.questions))
    membership = np.array([groups.index(question.group) for question in content.questions])
    chances = _chances(content)
    for name, right in values.items():
        own = [membership == g for g in range(len(groups))]
        means = [ratio(*by_picture(right[mine], owners[mine], len(z))) for mine in own]
        score.add(name, mean_of(means), chances.get(name))
        if len(groups) > 1:
            for g, group in enumerate(groups):
                score.add(f"{group}/{name}", means[g], chances.get(name))
    return score


def _chances(content: Questions) -> dict[str, float]:
    """Chance if scores are in random order; {} if the questions' shapes differ or it is not known."""
    shapes = {(len(question.pictures), len(question.texts)) for question in content.questions}
    match shapes.pop() if len(shapes) == 1 else None:
        case (1, texts):
            return {"text_acc": 1 / texts}
        case (2, 2):
            return {
                "text_acc": 1 / 4,
                "image_acc": 1 / 4,
                "acc": 1 / comb(4, 2),
            }  # both right pairs are the best two of four
    return {}
