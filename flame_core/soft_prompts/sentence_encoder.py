"""A small trained transformer over the LLM's tokens: a caption as one vector, when no stored vectors are used.

Some tokens are replaced by a mask during training, so that the vector does not depend on each single one. The vector
[B, D] is the last layer's output at a learned first token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flame_core.params.prompts import SentenceEncoderParams
from flame_core.soft_prompts.reader import CaptionIds


class SentenceEncoder(nn.Module):
    """Ids of captions to sentence vectors [B, D]."""

    def __init__(self, params: SentenceEncoderParams, vocabulary: int, longest: int, dropout: float) -> None:
        super().__init__()
        self.masked, self.mask_id = params.masked, vocabulary
        self.tokens = nn.Embedding(vocabulary + 1, params.width)
        self.first = nn.Parameter(torch.zeros(params.width))
        self.places = nn.Parameter(torch.zeros(longest + 1, params.width))
        layer = nn.TransformerEncoderLayer(
            params.width, params.heads, 4 * params.width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, params.layers, nn.LayerNorm(params.width), False)
        nn.init.normal_(self.tokens.weight, std=1.0)
        nn.init.normal_(self.first, std=1.0)
        nn.init.normal_(self.places, std=0.1)

    def hidden_from(self, captions: CaptionIds) -> Tensor:
        """Ids [B, T] with some masked, in training mode; the end token of a caption never is."""
        ids = captions.ids
        if not self.training or not self.masked:
            return ids
        last = captions.mask.sum(dim=1, keepdim=True) - 1
        inner = torch.arange(ids.shape[1], device=ids.device)[None] < last
        draw = torch.rand(ids.shape).to(ids.device) < self.masked
        return ids.masked_fill(draw & inner, self.mask_id)

    def forward(self, captions: CaptionIds) -> Tensor:
        """Vectors [B, D]."""
        return self.encode(self.hidden_from(captions), captions.mask)

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors [B, D] of ids [B, T], of which those outside of `mask` are pads."""
        x = torch.cat([self.first.expand(len(ids), 1, -1), self.tokens(ids)], dim=1)
        x = x + self.places[: x.shape[1]]
        pads = torch.cat([mask.new_zeros(len(mask), 1), ~mask], dim=1)
        return self.layers(x, src_key_padding_mask=pads)[:, 0]
