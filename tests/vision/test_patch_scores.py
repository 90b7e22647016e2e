"""The CLS row of attention beside fused attention equals that of the whole matrix; other scores and sizes."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.attention import Attention
from torch.nn import functional as F

from flame_core.vision.patch_scores import accept_any_size, cls_row, look, why_not_scored
from tests.vision.test_facet_tokens import OPTIONS, pictures, tower

WITHOUT_CLS = OPTIONS | {"class_token": False}


def every_weight(backbone, x) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) of all blocks, [L, B, heads, T, T], without fused attention."""
    x, found = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(x))), []
    for block in backbone.blocks:
        attention: Attention = block.attn
        q, k, _ = attention.qkv(block.norm1(x)).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        found.append((attention.q_norm(q) @ attention.k_norm(k).mT * attention.scale).softmax(dim=-1))
        x = block(x)
    return torch.stack(found)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"reg_tokens": 2}])
@torch.no_grad()
def test_the_row_is_that_of_all_attention(options):
    made = tower(None, backbone_options=OPTIONS | options).backbone
    whole = every_weight(made, pictures()).mean(dim=(0, 2))[:, 0]  # [B, T], mean over blocks and heads
    seen = look(made, pictures(), "cls")
    torch.testing.assert_close(seen.scores.flatten(1), whole[:, made.num_prefix_tokens :], atol=1e-6, rtol=1e-5)
    assert seen.scores.shape == (3, 4, 4) and seen.scores.std() > 1e-3
    tokens = made.forward_features(pictures())
    torch.testing.assert_close(seen.cls, tokens[:, 0])
    torch.testing.assert_close(seen.pooled, tokens[:, made.num_prefix_tokens :].mean(dim=1))
    assert not made.blocks[0].attn.qkv._forward_hooks


def test_the_row_of_one_layer():
    attention = Attention(8, num_heads=2)
    qkv = torch.randn(1, 3, 24, generator=torch.Generator().manual_seed(0))
    q, k = qkv[0, :, :8], qkv[0, :, 8:16]
    expected = sum((q[0, h : h + 4] @ k[:, h : h + 4].T / 2).softmax(dim=-1) for h in (0, 4)) / 2
    torch.testing.assert_close(cls_row(attention, qkv)[0], expected)


@torch.no_grad()
def test_likeness_to_the_mean_patch_needs_no_cls_token():
    made = tower(None, backbone_options=WITHOUT_CLS).backbone
    patches = made.forward_features(pictures())
    seen = look(made, pictures(), "similarity")
    expected = F.cosine_similarity(patches, patches.mean(dim=1, keepdim=True), dim=-1)
    torch.testing.assert_close(seen.scores, expected.view(3, 4, 4))
    assert torch.equal(seen.cls, seen.pooled)


@pytest.mark.parametrize("options", [{}, WITHOUT_CLS])
@torch.no_grad()
def test_attention_pooling_scores_patches_by_its_own_weights(options):
    """The oracle: with values that tell the patches apart, timm's own pooling shows the mean of its heads' weights."""
    made = tower(None, head="attention", backbone_options=OPTIONS | options).backbone
    pooling = made.attn_pool
    pooling.latent.normal_()
    pooling.kv.weight.normal_()
    seen = look(made, pictures(), "pool")
    patches = made.forward_features(pictures())[:, made.num_prefix_tokens :]
    weights = []
    for patch in range(16):
        shown = torch.zeros(3, 16, 24)
        shown[:, patch] = 1
        weights.append(_pooled(pooling, patches, shown).mean(dim=-1))
    torch.testing.assert_close(seen.scores.flatten(1), torch.stack(weights, dim=1), atol=1e-6, rtol=1e-5)
    assert seen.scores.shape == (3, 4, 4) and seen.scores.std() > 1e-3
    accept_any_size(made)
    assert look(made, F.interpolate(pictures(), size=16, mode="area"), "pool").scores.shape == (3, 2, 2)


def _pooled(pooling, patches: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """timm's pooling with these values [B, N, C] in place of its own, before what comes after attention, [B, C]."""
    bare, whole = copy.deepcopy(pooling), pooling.kv(patches)
    bare.proj, bare.mlp = torch.nn.Identity(), None
    del bare.kv
    bare.kv = lambda x: torch.cat([whole[..., :24], values], dim=-1)
    return bare(patches)


@torch.no_grad()
def test_a_smaller_picture_has_a_smaller_map():
    made = tower(None).backbone
    whole = look(made, pictures(), "cls")
    accept_any_size(made)
    assert all(torch.equal(a, b) for a, b in zip(look(made, pictures(), "cls"), whole, strict=True))
    half = look(made, F.interpolate(pictures(), size=16, mode="area"), "cls")
    assert half.scores.shape == (3, 2, 2) and half.cls.shape == whole.cls.shape


def test_why_a_backbone_is_not_scored():
    assert why_not_scored(tower(None).backbone, "cls") is None
    without = tower(None, backbone_options=WITHOUT_CLS).backbone
    assert "needs a CLS token" in (why_not_scored(without, "cls") or "")
    assert why_not_scored(without, "similarity") is None
    assert "needs a plain ViT" in (why_not_scored(torch.nn.Linear(2, 2), "similarity") or "")
    assert "set that head" in (why_not_scored(without, "pool") or "")
    assert why_not_scored(tower(None, head="attention", backbone_options=WITHOUT_CLS).backbone, "pool") is None
    made = tower(None).backbone
    made.blocks[1].attn = torch.nn.Identity()
    assert "needs timm's plain attention" in (why_not_scored(made, "cls") or "")
