"""Retrieval benchmarks: every caption is a text of its own and belongs to its picture alone, as papers count.

`text_retrieval_*` asks with a picture (right: any of its captions), `image_retrieval_*` with a caption. Ties are
resolved by expectation (`measuring.retrieval`), so a model that sees no difference gets chance.
"""

from __future__ import annotations

import numpy as np

from flame_core.measuring.intervals import by_picture, ratio
from flame_core.measuring.retrieval import Direction, Pairing, both_ways
from flame_core.suite.content import Captioned
from flame_core.suite.definition import RetrievalParams
from flame_core.suite.score import Score, Texts

NAMES: dict[Direction, str] = {"image_to_text": "text_retrieval", "text_to_image": "image_retrieval"}


def used_captions(task: RetrievalParams, content: Captioned, language: str) -> list[tuple[int, str]]:
    """(picture, text) of a language: all captions, or the first of each picture."""
    rows = content.captions.get(language, [])
    if task.captions == "all":
        return rows
    first: dict[int, str] = {}
    for picture, text in rows:
        first.setdefault(picture, text)
    return list(first.items())


def texts(task: RetrievalParams, content: Captioned) -> list[str]:
    """What is looked up, each text once."""
    found: dict[str, None] = {}
    for language in content.captions:
        found.update(dict.fromkeys(text for _, text in used_captions(task, content, language)))
    return list(found)


def measure(task: RetrievalParams, content: Captioned, language: str, z: np.ndarray, encode: Texts) -> Score | None:
    """Recall, median rank and chance of one language, both directions; None where no picture has a caption.

    Args:
        task: which captions, which k.
        content: pictures and captions.
        language: one of its languages.
        z: [N, D] of all pictures.
        encode: texts to [T, D].
    """
    rows = used_captions(task, content, language)
    if not rows:
        return None
    pairing = Pairing.of(((picture, index) for index, (picture, _) in enumerate(rows)), [text for _, text in rows])
    score = Score(language, facts={"pictures": len(pairing.pictures), "texts": len(rows)})
    for direction, found in both_ways(z, encode(pairing.texts), pairing).items():
        score.facts[f"{NAMES[direction]}_median_rank"] = found.median_rank()
        for k in task.recall_at:
            name = f"{NAMES[direction]}_recall@{k}"
            score.add(name, ratio(*by_picture(found.ranking.hits(k), found.pictures, len(z))), found.chance(k))
    return score
