"""Lets a ViT see only some patches, chosen per picture: the others are left out before the first block.

A method with masking (A-CLIP, FLIP) chooses the patches to keep (`Batch.keep`); the others cost nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flame_core.errors import ParamsError

PARTS = ("patch_embed", "_pos_embed", "patch_drop", "norm_pre", "blocks", "norm")  # of timm's plain ViT


def missing_parts(backbone: Any) -> list[str]:
    """What a backbone lacks of timm's plain ViT; if nothing, its forward pass can be done in steps.

    Others with the same parts, such as EVA-02 and DINOv3, add rotary positions on the way.
    """
    missing = [part for part in PARTS if not hasattr(backbone, part)]
    plain = missing or isinstance(backbone, VisionTransformer)
    return missing if plain else ["forward pass of timm's VisionTransformer"]


def embedded(backbone: Any, pictures: Tensor, keep: Tensor | None = None) -> Tensor:
    """Tokens before the first block: prefix tokens, then the N patches or the M of `keep` [B, M], in its order.

    Raises:
        ParamsError: patches are to be left out, but the backbone is not a plain ViT.
    """
    if keep is not None and (missing := missing_parts(backbone)):
        raise ParamsError(
            f"the backbone {type(backbone).__name__} has no {', '.join(missing)}; leaving patches out "
            "needs a plain ViT",
            key="train.model",
        )
    x = backbone._pos_embed(backbone.patch_embed(pictures))  # [B, P + N, C]
    if keep is not None:
        prefix = backbone.num_prefix_tokens
        rows = keep[..., None].expand(-1, -1, x.shape[-1])
        x = torch.cat([x[:, :prefix], x[:, prefix:].gather(1, rows)], dim=1)
    return backbone.norm_pre(backbone.patch_drop(x))


def subset_tokens(backbone: Any, pictures: Tensor, keep: Tensor) -> Tensor:
    """Tokens of the last block [B, P + M, C] for pictures of which only the patches `keep` [B, M] are seen."""
    x = embedded(backbone, pictures, keep)
    for block in backbone.blocks:
        x = through(backbone, block, x)
    return backbone.norm(x)


def through(backbone: Any, block: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """A block's output; its activations are recomputed in backward if the backbone is set to do so."""
    if backbone.grad_checkpointing and torch.is_grad_enabled():
        return checkpoint(block, x, attn_mask=mask, use_reentrant=False)
    return block(x, attn_mask=mask)
