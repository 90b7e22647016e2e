"""How much a ViT looks at each patch: the CLS row of its attention, that of its pooling, or a likeness.

Fused attention returns no weights, and all of them would be [B, heads, T, T] numbers per block. So a hook takes queries
and keys of each block on their way to fused attention, and only the row of the CLS token is computed beside it.
Attention pooling (SigLIP's) has one row, that of its learned query. The likeness of a patch is its cosine with the mean
patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from timm.layers.attention import Attention
from timm.layers.format import Format
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.vision.token_subset import embedded, missing_parts

Score = Literal["cls", "pool", "similarity"]


_OTHERS = "take score pool with model.head attention, or score similarity"


class Look(NamedTuple):
    """What a backbone sees in pictures: scores [B, h, w] of its patches, its pooled feature and its CLS token, [B, C].

    A backbone without a CLS token has the pooled feature in its place.
    """

    scores: Tensor
    pooled: Tensor
    cls: Tensor


def why_not_scored(backbone: Any, score: Score) -> str | None:
    """Why a backbone's patches cannot be scored in this way; None if they can."""
    kind = type(backbone).__name__
    if missing := missing_parts(backbone):
        return f"the backbone {kind} has no {', '.join(missing)}; leaving patches out needs a plain ViT"
    if score == "cls" and getattr(backbone, "cls_token", None) is None:
        return f"score cls needs a CLS token, which the backbone {kind} lacks: {_OTHERS}"
    if score == "cls" and not all(isinstance(block.attn, Attention) for block in backbone.blocks):
        return f"score cls needs timm's plain attention, which the backbone {kind} lacks: {_OTHERS}"
    if score == "pool" and getattr(backbone, "attn_pool", None) is None:
        return "score pool is the attention of model.head attention: set that head, or take score similarity"
    return None


def accept_any_size(backbone: Any) -> None:
    """Let a timm ViT take pictures of any whole number of patches; position embeddings are interpolated."""
    backbone.dynamic_img_size = True
    backbone.patch_embed.strict_img_size = False
    backbone.patch_embed.flatten, backbone.patch_embed.output_fmt = False, Format.NHWC


def look(backbone: Any, pictures: Tensor, score: Score) -> Look:
    """What a backbone sees in normalised pictures [B, 3, H, W] of any size; see `accept_any_size`."""
    x = embedded(backbone, pictures)
    prefix = backbone.num_prefix_tokens
    rows: list[Tensor] = []
    with _cls_rows(backbone, rows, prefix) if score == "cls" else nullcontext():
        for block in backbone.blocks:
            x = block(x)
    normed = backbone.norm(x)
    tokens = normed.float()
    pooled = tokens[:, prefix:].mean(dim=1)
    if score == "pool":
        scores = pool_row(backbone.attn_pool, normed[:, prefix:])
    elif score == "cls":
        scores = torch.stack(rows).mean(dim=0)
    else:
        scores = F.cosine_similarity(tokens[:, prefix:], pooled[:, None], dim=-1)
    grid = [side // patch for side, patch in zip(pictures.shape[-2:], backbone.patch_embed.patch_size, strict=True)]
    return Look(scores.unflatten(1, grid), pooled, tokens[:, 0] if prefix else pooled)


def cls_row(attention: Any, qkv: Tensor) -> Tensor:
    """The mean of softmax(q_cls k^T / sqrt(d)) over the heads, [B, T]; `qkv` [B, T, 3C] of that layer."""
    q, k, _ = qkv.unflatten(2, (3, attention.num_heads, -1)).unbind(dim=2)  # [B, T, heads, d]
    q, k = attention.q_norm(q[:, 0]).float(), attention.k_norm(k).float()
    return (torch.einsum("bhd,bthd->bht", q, k) * attention.scale).softmax(dim=-1).mean(dim=1)


def pool_row(pooling: Any, patches: Tensor) -> Tensor:
    """The mean of softmax(q k^T / sqrt(d)) over the heads of timm's attention pooling, [B, N]; `patches` [B, N, C]."""
    q = pooling.q(pooling.latent).unflatten(2, (pooling.num_heads, -1))  # [1, 1, heads, d]
    k = pooling.kv(patches).unflatten(2, (2, pooling.num_heads, -1))[:, :, 0]  # [B, N, heads, d]
    q, k = pooling.q_norm(q[:, 0]).float(), pooling.k_norm(k).float()
    return (torch.einsum("ohd,bnhd->bhn", q, k) * pooling.scale).softmax(dim=-1).mean(dim=1)


@contextmanager
def _cls_rows(backbone: Any, rows: list[Tensor], prefix: int) -> Iterator[None]:
    """While open, every block that runs adds its CLS row on the patches, [B, N], to `rows`."""

    def of(attention: nn.Module) -> Any:
        return lambda module, inputs, qkv: rows.append(cls_row(attention, qkv)[:, prefix:])

    hooks = [block.attn.qkv.register_forward_hook(of(block.attn)) for block in backbone.blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
