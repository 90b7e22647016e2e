"""How well a captioner does on held-out pictures: the loss of their captions, and what the LLM writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_core.captioning.scores import bleu, cider
from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.soft_prompts.reader import caption_ids, token_losses

_AT_ONCE = 16


@dataclass(frozen=True)
class Written:
    """A held-out picture's caption, its reference captions, and its CIDEr-D."""

    key: str
    text: str
    references: tuple[str, ...]
    cider: float


@dataclass(frozen=True)
class HeldOut:
    """All of them, with what they come to.

    Attributes:
        written: per picture.
        loss: mean nats per token of a reference caption behind the prompts of its picture.
        loss_of_others: the same behind the prompts of the picture before; not larger if pictures are not looked at.
        bleu: BLEU-4 of all texts together.
    """

    written: list[Written]
    loss: float
    loss_of_others: float
    bleu: float

    @property
    def cider(self) -> float:
        """Mean CIDEr-D, 0 to 10."""
        return float(np.mean([each.cider for each in self.written]))

    @property
    def distinct(self) -> float:
        """Share of different texts among those written."""
        return len({each.text for each in self.written}) / len(self.written)

    @property
    def gain(self) -> float:
        """Nats per token by which a caption is likelier behind the prompts of its own picture."""
        return self.loss_of_others - self.loss

    def scores(self) -> dict[str, float]:
        """The figures by name."""
        return {
            "bleu_4": self.bleu,
            "cider": self.cider,
            "loss": self.loss,
            "loss_of_others": self.loss_of_others,
            "distinct": self.distinct,
        }

    def record(self) -> dict[str, Any]:
        """The content of `captions.json`."""
        rows = [
            {"key": each.key, "written": each.text, "references": list(each.references), "cider": each.cider}
            for each in self.written
        ]
        return {"scores": self.scores(), "captions": rows}


def held_out(
    llm: FrozenLLM,
    v: Tensor,
    keys: Sequence[str],
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    max_tokens: int,
) -> HeldOut:
    """The figures of pictures with prompts v [N, n, H], what was written for them, and their reference captions."""
    each = cider(texts, references)
    rows = zip(keys, texts, references, each, strict=True)
    return HeldOut(
        written=[Written(key, text, tuple(own), score) for key, text, own, score in rows],
        loss=_loss(llm, v, references, max_tokens),
        loss_of_others=_loss(llm, v.roll(1, dims=0), references, max_tokens),
        bleu=bleu(texts, references),
    )


@torch.no_grad()
def _loss(llm: FrozenLLM, v: Tensor, references: Sequence[Sequence[str]], max_tokens: int) -> float:
    """Mean over all tokens of each picture's first reference."""
    total, tokens = 0.0, 0
    for start in range(0, len(v), _AT_ONCE):
        firsts = [own[0] for own in references[start : start + _AT_ONCE]]
        ids = caption_ids(llm, firsts, max_tokens)
        total += float(token_losses(llm, v[start : start + _AT_ONCE], ids).sum())
        tokens += int(ids.mask.sum())
    return total / tokens
