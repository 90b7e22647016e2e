"""LexVLA's head: patch tokens to weights of words.

    y = MLP(block(patches)),   logits = max over patches of y Z^T,   s = n(elu(logits) + 1)

`block` is a transformer block of the backbone's width, Z [V, D] the codebook: it begins as the words' rows of the LLM's
output matrix and is trained. (LexVLA, arXiv 2407.17827.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BLOCK = 2048  # words at once: logits of all patches and all words would be [B, N, V]


class LexicalHead(nn.Module):
    """Patch tokens [B, N, C] to unit vectors z [B, 1, V] of words, all of whose values are positive."""

    def __init__(self, width: int, dims: int, words: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        heads = max(heads for heads in range(1, max(1, width // 64) + 1) if width % heads == 0)
        self.block = Block(width, heads, qkv_bias=True)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dims), nn.GELU(), nn.Linear(dims, dims))
        self.codebook = nn.Parameter(torch.zeros(words, dims))

    @torch.no_grad()
    def start_from(self, rows: Tensor) -> None:
        """Set the codebook to the words' rows [V, D] of the LLM."""
        self.codebook.copy_(rows)

    def forward(self, patches: Tensor, facets: Tensor | None = None) -> Tensor:
        return word_weights(self._largest(self.layers(self.block(patches))))[:, None]

    def of_patches(self, patches: Tensor) -> Tensor:
        """The unit vectors [B, N, V] of each patch."""
        return word_weights(self.layers(self.block(patches)) @ self.codebook.T)

    def by_patch(self, patches: Tensor, words: Tensor) -> Tensor:
        """What each patch gives to the words [W] of its picture, [B, N, W]; the largest is the word's weight in z."""
        y = self.layers(self.block(patches))
        length = phi(self._largest(y)).norm(dim=-1)  # by which z was divided
        return phi(y @ self.codebook[words].T) / length[:, None, None]

    def _largest(self, y: Tensor) -> Tensor:
        """The largest logit over patches [B, N, D] of each word, [B, V]."""
        return torch.cat([(y @ words.T).max(dim=1).values for words in self.codebook.split(_BLOCK)], dim=-1)


def phi(logits: Tensor) -> Tensor:
    """elu(x) + 1 in float32."""
    return F.elu(logits.float()) + 1


def word_weights(logits: Tensor) -> Tensor:
    """n(elu(x) + 1) in float32 along the last axis."""
    return F.normalize(phi(logits), dim=-1)
