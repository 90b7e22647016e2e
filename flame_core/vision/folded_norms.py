"""The affine part of a ViT's layer norms, computed by the linear map that reads them while training on a GPU.

With n = x^ * g + b, where x^ has mean 0 and variance 1, a linear map of n is a linear map of x^:

    W n + c = (W diag(g)) x^ + (W b + c)

So the gradients of g and b follow from those of the map, which are as small as its weights. Otherwise each norm sums
over all tokens of the batch to get them, which costs more than the norm itself. The weights stay where they are, under
the same names. Both ways are equal except for rounding. A CPU and an evaluation compute norms the usual way.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class FoldedNorm(nn.LayerNorm):
    """A layer norm that leaves its affine part to a `LinearAfterNorm` while training on a GPU."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.is_folded(input):
            return super().forward(input)
        return F.layer_norm(input, self.normalized_shape, eps=self.eps)

    def is_folded(self, x: Tensor) -> bool:
        """Whether the map that reads this norm of x, or its output x, has to do the affine part."""
        return self.training and x.is_cuda


class LinearAfterNorm(nn.Linear):
    """The only reader of a `FoldedNorm`, x [..., C] to [..., D]."""

    norm_of: tuple[FoldedNorm]  # in a tuple, so that it is no submodule here and its weights have one name

    def forward(self, input: Tensor) -> Tensor:
        (norm,) = self.norm_of
        if not norm.is_folded(input):
            return super().forward(input)
        moved = (self.weight * norm.bias).sum(dim=1)  # not a matrix product, which autocast would round
        return F.linear(input, self.weight * norm.weight, moved if self.bias is None else moved + self.bias)


def fold_norms(backbone: Any) -> None:
    """Fold the norms of timm's plain blocks into their attention and MLP; other modules stay as they are."""
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.layers.norm import LayerNorm
    from timm.models.vision_transformer import Block

    def fold(norm: Any, linear: Any) -> None:
        plain = type(norm) in (LayerNorm, nn.LayerNorm) and not getattr(norm, "_fast_norm", False)
        if plain and norm.elementwise_affine and type(linear) is nn.Linear:
            norm.__class__, linear.__class__ = FoldedNorm, LinearAfterNorm  # the same modules with another forward
            linear.__dict__["norm_of"] = (norm,)  # not a module of its own

    for block in getattr(backbone, "blocks", ()):
        if type(block) is not Block:
            continue
        if type(block.attn) is Attention and getattr(block.attn, "gate", None) is None:  # a gate reads the norm too
            fold(block.norm1, block.attn.qkv)
        if type(block.mlp) is Mlp:
            fold(block.norm2, block.mlp.fc1)
