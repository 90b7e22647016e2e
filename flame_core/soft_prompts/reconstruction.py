"""What the LLM writes from the prompts of a caption, and how near that is to the caption.

    overlap = 2 |words of both| / (|words of the caption| + |words written|)

Words are counted as often as they occur, in lower case; two empty texts overlap fully.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from flame_core.reporting import progress
from flame_core.soft_prompts.autoencoder import Autoencoder
from flame_core.soft_prompts.fit import Fit
from flame_core.soft_prompts.losses import nearest_ids
from flame_core.soft_prompts.reader import write

_WORD = re.compile(r"\w+")
_SPARE = 4  # tokens that the LLM may write beyond the longest caption


@dataclass(frozen=True)
class Written:
    """A caption, what the LLM wrote from its prompts, and the tokens whose input vectors lie nearest to these."""

    text: str
    written: str
    nearest: list[str]

    @property
    def exact(self) -> bool:
        """Whether it is the caption."""
        return self.text == self.written

    @property
    def overlap(self) -> float:
        """The overlap of the words of both texts."""
        return overlap(self.text, self.written)

    @property
    def content(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def overlap(first: str, second: str) -> float:
    """F1 of the words of two texts, from 0 to 1."""
    one, other = (Counter(_WORD.findall(text.casefold())) for text in (first, second))
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


@dataclass(frozen=True)
class Reconstruction:
    """Captions and what was written from their prompts."""

    rows: list[Written]

    @classmethod
    def of(cls, contents: Sequence[Mapping[str, Any]]) -> Reconstruction:
        """Made again from the `content` of each."""
        return cls([Written(**content) for content in contents])

    @property
    def exact(self) -> float:
        """Share of the captions that were written exactly."""
        return sum(row.exact for row in self.rows) / len(self.rows)

    @property
    def overlap(self) -> float:
        """Mean overlap."""
        return sum(row.overlap for row in self.rows) / len(self.rows)

    @property
    def by_chance(self) -> float:
        """Mean overlap of each text with the next caption: what can be reached without knowing the caption."""
        following = [*self.rows[1:], *self.rows[:1]]
        pairs = zip(self.rows, following, strict=True)
        return sum(overlap(other.text, row.written) for row, other in pairs) / len(self.rows)


@torch.no_grad()
def reconstructed(fit: Fit, model: Autoencoder, numbers: Sequence[int], title: str) -> list[Written]:
    """What the LLM writes greedily from the prompts of captions by their numbers."""
    found: list[Written] = []
    size = fit.params.batch_size
    limit = fit.params.max_tokens + _SPARE
    with progress(title, len(numbers), "captions") as bar:
        for start in range(0, len(numbers), size):
            own = list(numbers[start : start + size])
            prompts = model.eval().prompts(*fit.inputs_of(own))
            ids = nearest_ids(fit.llm, prompts).tolist()
            tokens = [[str(fit.llm.tokenizer.decode([token])).strip() for token in row] for row in ids]
            texts = write(fit.llm, prompts, max_new_tokens=limit)
            found += map(Written, fit.sentences.texts_of(own), texts, tokens)
            bar.advance(len(own))
    return found
