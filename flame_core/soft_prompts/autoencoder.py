"""The autoencoder of captions: sentence vector, prompts, and the frozen LLM that must write the caption back.

loss = lm * L_lm + vocab * L_vocab + contrast * L_c
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.params import PromptsParams
from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.soft_prompts.losses import contrast_loss, vocabulary_loss
from flame_core.soft_prompts.prompt_head import PromptHead, PromptHeadConfig
from flame_core.soft_prompts.reader import CaptionIds, caption_loss
from flame_core.soft_prompts.sentence_encoder import SentenceEncoder

_HOTTEST = math.log(100.0)  # of 1 / temperature


class Autoencoder(nn.Module):
    """All that is trained; the LLM is no part of it.

    Attributes:
        head: sentence vectors to prompts.
        encoder: captions to sentence vectors, or None if those are stored.
    """

    def __init__(self, params: PromptsParams, config: PromptHeadConfig, vocabulary: int) -> None:
        super().__init__()
        self.params = params
        self.head = PromptHead(config)
        own = params.encoder
        self.encoder = own and SentenceEncoder(own, vocabulary, params.max_tokens + 1, params.dropout)
        self.compared = nn.Linear(config.width, params.contrast.dims) if params.weights.contrast else None
        self.hotness = nn.Parameter(torch.tensor(-math.log(params.contrast.temperature)))

    def prompts(self, vectors: Tensor | None, captions: CaptionIds) -> Tensor:
        """Prompts [B, n, H] of captions, from their stored vectors [B, D] or by the encoder."""
        return self.head.prompts_of(self._sentences(vectors, captions))

    def losses(self, llm: FrozenLLM, vectors: Tensor | None, captions: CaptionIds) -> dict[str, Tensor]:
        """{`loss`, and each term by its name}, of captions and their stored vectors [B, D] if those are read."""
        weights, contrast = self.params.weights, self.params.contrast
        c = self._sentences(vectors, captions)
        p = self.head.prompts_of(c)
        terms = {"lm": caption_loss(llm, p, captions)}
        total = weights.lm * terms["lm"]
        if weights.vocab:
            terms["vocab"] = vocabulary_loss(llm, p)
            total = total + weights.vocab * terms["vocab"]
        if self.compared is not None:
            e = self._unit(c)
            other = self._unit(self._sentences(vectors, captions)) if contrast.passes == 2 else None
            temperature = torch.exp(-self.hotness.clamp(max=_HOTTEST))
            terms["contrast"] = contrast_loss(e, other, temperature, contrast.smoothing)
            total = total + weights.contrast * terms["contrast"]
        return {"loss": total, **terms}

    def _sentences(self, vectors: Tensor | None, captions: CaptionIds) -> Tensor:
        """The c [B, W] of captions; in training mode two calls differ by dropout and masks."""
        own = vectors if self.encoder is None else self.encoder(captions)
        assert own is not None
        return self.head.sentences(own)

    def _unit(self, c: Tensor) -> Tensor:
        assert self.compared is not None
        return F.normalize(self.compared(c), dim=-1)
