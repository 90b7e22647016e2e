"""The page of `flame lexical`: captions by their heaviest words, and the words that most captions use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flame_core.pages.charts import line_chart
from flame_core.pages.render import render

_CAPTIONS, _WORDS, _USED = 40, 12, 40  # that are shown


@dataclass(frozen=True)
class WordedCaption:
    """A caption and its heaviest words with their weights, the heaviest first."""

    key: str
    text: str
    words: list[tuple[str, float]]


def lexical_page(captions: Sequence[WordedCaption], words: Sequence[str], share: np.ndarray) -> str:
    """The page as HTML.

    Args:
        captions: examples.
        words: texts of all words.
        share: of the training captions that each word [V] is active in.
    """
    order = np.argsort(-share, kind="stable")
    sizes = np.sort(share[share > 0])[::-1]
    return render(
        "lexical.html.j2",
        captions=[(each.text, each.words[:_WORDS]) for each in captions[:_CAPTIONS]],
        used=[(words[place], float(share[place])) for place in order[:_USED] if share[place] > 0],
        words=len(words),
        never=int((share == 0).sum()),
        active=float(share.sum()),
        chart=line_chart(range(len(sizes)), sizes.tolist(), "Share of the captions by word", "word by use"),
    )
