"""Retrieval benchmarks: every caption is a separate text and belongs only to its picture, as papers count.

In `text_retrieval_*` the query is a picture (right: any of its captions), in `image_retrieval_*` a caption. Ties are
resolved by expectation (`measuring.retrieval`), so a model whose vectors are all equal gets chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from flame_core.measuring.intervals import by_picture, ratio
from flame_core.measuring.retrieval import Direction, Pairing, both_ways
from flame_core.params.section import Positive
from flame_core.suite.content import Captioned
from flame_core.suite.encoding import Vectors
from flame_core.suite.score import Score, Texts
from flame_core.suite.tasks.task import Asked, Task, TaskParams

NAMES: dict[Direction, str] = {"image_to_text": "text_retrieval", "text_to_image": "image_retrieval"}
_WAYS = {"text_retrieval_": "picture → text, ", "image_retrieval_": "text → picture, "}


class RetrievalParams(TaskParams):
    """Pictures and texts find each other; a query is right if any of its answers is among the first k."""

    kind: Literal["retrieval"]
    captions: Literal["all", "first"] = Field(
        default="all", description="which captions per image and language are used"
    )
    recall_at: list[Positive] = Field(default=[1, 5, 10], min_length=1)


class RetrievalTask(Task[RetrievalParams, Captioned]):
    """Pictures and texts find each other, in every language of the benchmark."""

    params = RetrievalParams
    wanted = Captioned
    wanted_is = "pictures with captions"
    exported_as = "zeroshot_retrieval"
    overview = "text lengths"

    def texts(self, params: RetrievalParams, content: Captioned) -> list[str]:
        found: dict[str, None] = {}
        for language in content.captions:
            found.update(dict.fromkeys(text for _, text in used_captions(params, content, language)))
        return list(found)

    def measure(self, asked: Asked[RetrievalParams, Captioned], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        z, encode = vectors.paired(asked.content.pictures)
        for language in asked.languages:
            yield language, score_language(asked.params, asked.content, language, z, encode)

    def headline(self, params: RetrievalParams) -> list[str]:
        return [f"{name}_recall@{min(params.recall_at)}" for name in NAMES.values()]

    def metrics(self, params: RetrievalParams) -> list[str]:
        return [f"{name}_recall@{k}" for name in NAMES.values() for k in params.recall_at]

    def title(self, metric: str) -> str:
        for name, way in _WAYS.items():
            if metric.startswith(name):
                return way + metric.removeprefix(name)
        return metric


def used_captions(params: RetrievalParams, content: Captioned, language: str) -> list[tuple[int, str]]:
    """(picture, text) of a language: all captions, or the first of each picture."""
    rows = content.captions.get(language, [])
    if params.captions == "all":
        return rows
    first: dict[int, str] = {}
    for picture, text in rows:
        first.setdefault(picture, text)
    return list(first.items())


def score_language(
    params: RetrievalParams, content: Captioned, language: str, z: np.ndarray, encode: Texts
) -> Score | None:
    """Recall, median rank and chance in one language, in both directions; None if no picture has a caption.

    Args:
        params: determine the captions and k.
        content: pictures and captions.
        language: one of its languages.
        z: [N, D] of all pictures.
        encode: texts to [T, D].
    """
    rows = used_captions(params, content, language)
    if not rows:
        return None
    pairing = Pairing.of(((picture, index) for index, (picture, _) in enumerate(rows)), [text for _, text in rows])
    score = Score(language, facts={"pictures": len(pairing.pictures), "texts": len(rows)})
    for direction, found in both_ways(z, encode(pairing.texts), pairing).items():
        score.facts[f"{NAMES[direction]}_median_rank"] = found.median_rank()
        for k in params.recall_at:
            name = f"{NAMES[direction]}_recall@{k}"
            score.add(name, ratio(*by_picture(found.ranking.hits(k), found.pictures, len(z))), found.chance(k))
    return score
