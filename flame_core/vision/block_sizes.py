"""A ViT whose width, heads and hidden units differ from what timm's arguments can say, each block's on its own.

A pruned tower has any width, so a head's size no longer follows from width and number of heads. It is still a plain
timm module, only with smaller weights: timm's attention knows the size of its heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.params import SizesParams


def why_not_plain(backbone: Any) -> str | None:
    """Why a backbone's heads and hidden units cannot be taken away one by one; None if they can."""
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import VisionTransformer

    name = type(backbone).__name__
    if type(backbone) is not VisionTransformer:
        return f"the backbone {name} is not timm's plain VisionTransformer"
    for block in backbone.blocks:
        attn, mlp = getattr(block, "attn", block), getattr(block, "mlp", block)
        if type(attn) is not Attention or type(mlp) is not Mlp:
            return f"the blocks of the backbone have {type(attn).__name__} and {type(mlp).__name__}, not plain ones"
        if attn.gate is not None or not isinstance(attn.norm, nn.Identity) or not isinstance(mlp.norm, nn.Identity):
            return "the blocks of the backbone have a gate or a norm inside attention or MLP"
    if backbone.attn_pool is not None:
        return "the backbone pools by attention (model.head attention), as wide as its tokens"
    if not isinstance(backbone.patch_embed.norm, nn.Identity):
        return "the backbone has a norm in its patch embedding"
    return None


def sizes_of(backbone: Any) -> SizesParams:
    """The sizes of a plain ViT."""
    return SizesParams(
        width=backbone.num_features,
        heads=[block.attn.num_heads for block in backbone.blocks],
        intermediate=[block.mlp.fc1.weight.shape[0] for block in backbone.blocks],
    )


def sizes_in(weights: Mapping[str, Tensor], backbone: Any, prefix: str) -> SizesParams:
    """The sizes that weights have, whose names begin with `prefix`; `backbone` has heads of the same size."""
    blocks = range(len(backbone.blocks))
    qkv = [weights[f"{prefix}blocks.{i}.attn.qkv.weight"].shape for i in blocks]
    return SizesParams(
        width=qkv[0][1],
        heads=[shape[0] // (3 * backbone.blocks[i].attn.head_dim) for i, shape in zip(blocks, qkv, strict=True)],
        intermediate=[weights[f"{prefix}blocks.{i}.mlp.fc1.weight"].shape[0] for i in blocks],
    )


def block_weights(sizes: SizesParams, head_dim: int) -> int:
    """The number of weights in the matrices of all blocks, without biases and norms."""
    inner = sum(4 * head_dim * heads + 2 * units for heads, units in zip(sizes.heads, sizes.intermediate, strict=True))
    return sizes.width * inner


def require_sizes(backbone: Any, sizes: SizesParams) -> None:
    """Refuse sizes that cannot be cut out of a backbone.

    Raises:
        ParamsError: names the first size that does not fit.
    """
    if reason := why_not_plain(backbone):
        raise ParamsError(reason, key="train.model.sizes")
    whole = sizes_of(backbone)
    for name in ("heads", "intermediate"):
        if (given := len(getattr(sizes, name))) != (depth := len(backbone.blocks)):
            raise ParamsError(
                f"{given} numbers, and the backbone has {depth} blocks: give one for each",
                key=f"train.model.sizes.{name}",
            )
    pairs = {
        "width": [(sizes.width, whole.width)],
        "heads": zip(sizes.heads, whole.heads, strict=True),
        "intermediate": zip(sizes.intermediate, whole.intermediate, strict=True),
    }
    for name, each in pairs.items():
        for wanted, there in each:
            if wanted > there:
                raise ParamsError(
                    f"{wanted} of {there} in the backbone: take at most {there}", key=f"train.model.sizes.{name}"
                )


def resize(backbone: Any, width: int, heads: Sequence[int], intermediate: Sequence[int]) -> None:
    """Keep the first dimensions of a timm ViT, and of each block the first heads and hidden units."""
    narrow(backbone, torch.arange(width), [torch.arange(n) for n in heads], [torch.arange(n) for n in intermediate])


def narrow(backbone: Any, hidden: Tensor, heads: Sequence[Tensor], intermediate: Sequence[Tensor]) -> None:
    """Keep the numbered dimensions of a timm ViT, and of each block the numbered heads and hidden units."""

    def keep(module: Any, name: str, *numbers: Tensor | None) -> None:
        weight = getattr(module, name, None)
        if weight is None:
            return
        kept = weight.detach()
        for axis, number in enumerate(numbers):
            kept = kept if number is None else kept.index_select(axis, number.to(kept.device))
        setattr(module, name, nn.Parameter(kept.clone(), weight.requires_grad))

    def linear(module: nn.Linear, rows: Tensor | None, columns: Tensor | None) -> None:
        keep(module, "weight", rows, columns)
        keep(module, "bias", rows)
        module.out_features, module.in_features = module.weight.shape

    def norm(module: Any) -> None:
        if isinstance(module, nn.LayerNorm):
            keep(module, "weight", hidden)
            keep(module, "bias", hidden)
            module.normalized_shape = (len(hidden),)

    keep(backbone.patch_embed.proj, "weight", hidden)
    keep(backbone.patch_embed.proj, "bias", hidden)
    backbone.patch_embed.proj.out_channels = len(hidden)
    for name in ("cls_token", "reg_token", "pos_embed"):
        keep(backbone, name, None, None, hidden)
    for block, own_heads, units in zip(backbone.blocks, heads, intermediate, strict=True):
        attn = block.attn
        inner = (own_heads[:, None] * attn.head_dim + torch.arange(attn.head_dim)).flatten()
        linear(attn.qkv, torch.cat([inner + part * attn.attn_dim for part in range(3)]), hidden)
        linear(attn.proj, hidden, inner)
        attn.num_heads, attn.attn_dim = len(own_heads), len(inner)
        linear(block.mlp.fc1, units, hidden)
        linear(block.mlp.fc2, hidden, units)
        for scale in (block.ls1, block.ls2):
            keep(scale, "gamma", hidden)
        norm(block.norm1)
        norm(block.norm2)
    norm(backbone.norm_pre)
    norm(backbone.norm)
    backbone.num_features = backbone.embed_dim = backbone.head_hidden_size = len(hidden)
