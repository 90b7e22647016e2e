"""Weights of a larger tower: which slice each tensor is, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.params import InheritParams, ModelParams
from flame_core.vision.inheritance import NEW, block_numbers, inherit, plan
from flame_core.vision.tower import ImageTower

LARGE = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4}
SMALL = {**LARGE, "embed_dim": 36, "depth": 2, "num_heads": 3}


def tower(options: dict[str, Any], seed: int = 0, hidden: int = 10, **model: Any) -> ImageTower:
    torch.manual_seed(seed)
    params = ModelParams(backbone_options=options, image_size=options["img_size"], **model)
    made = ImageTower(params, hidden=hidden, facets=2).eval()
    with torch.no_grad():
        for weight in made.parameters():  # fresh norms and biases are all equal
            weight.add_(torch.randn_like(weight) * 0.02)
    return made


def params(**changes: Any) -> InheritParams:
    return InheritParams(recipe="source", **changes)


@pytest.mark.parametrize(
    ("given", "own", "numbers"),
    [
        (12, 6, [0, 2, 4, 6, 8, 10]),
        (12, 9, list(range(9))),
        (12, 10, list(range(10))),
        (12, 3, [0, 4, 8]),
        (12, 12, list(range(12))),
    ],
)
def test_blocks_are_taken_at_equal_intervals_from_the_first(given, own, numbers):
    assert block_numbers(own, given, "interval") == numbers
    assert block_numbers(own, given, "first") == list(range(own))


def test_blocks_may_be_named():
    assert block_numbers(3, 12, [1, 5, 11]) == [1, 5, 11]
    for wrong in ([1, 5], [5, 1, 11], [1, 1, 5], [1, 5, 12], []):
        with pytest.raises(ParamsError, match="name 3 different blocks, one for each of the tower"):
            block_numbers(3, 12, wrong)


@pytest.mark.parametrize(
    "model", [{}, {"facet_blocks": 1}, {"head": "cls"}, {"head": "attention"}, {"backbone": "vit_tiny_patch16_224"}]
)
def test_the_same_shape_inherits_the_function_bit_for_bit(model):
    source, own = tower(LARGE, 0, **model), tower(LARGE, 1, **model)
    pictures = torch.randn(2, 3, 32, 32)
    assert not torch.equal(own.z(pictures), source.z(pictures))
    origins = inherit(own, source, params())
    assert torch.equal(own.z(pictures), source.z(pictures))
    assert origins.keys() == own.state_dict().keys()


@pytest.mark.parametrize(
    "options", [{}, {"init_values": 0.1, "qk_norm": True, "reg_tokens": 2, "scale_attn_norm": True}]
)
def test_every_tensor_is_the_front_slice_of_its_source(options):
    source, own = tower(LARGE | options, 0), tower(SMALL | options, 1)
    origins = inherit(own, source, params())
    given, weights = source.state_dict(), own.state_dict()
    assert origins.keys() == weights.keys()
    for name, weight in weights.items():
        there = name.replace("blocks.1.", "blocks.2.")
        assert origins[name].name == there
        if "attn.qkv" in name:
            whole, part = (x.unflatten(0, (3, h, 12)) for x, h in ((given[there], 4), (weight, 3)))
            assert torch.equal(part, whole[:, :3] if "bias" in name else whole[:, :3, :, :36])
        else:
            assert torch.equal(weight, given[there][tuple(slice(size) for size in weight.shape)]), name


def test_attention_pooling_is_inherited_with_the_head():
    source, own = tower(LARGE, 0, head="attention"), tower(SMALL, 1, head="attention")
    drawn = own.backbone.attn_pool.latent.clone()
    assert plan(own, source, params(projector=False))["backbone.attn_pool.latent"].name == "new"
    inherit(own, source, params())
    theirs, ours = source.backbone.attn_pool, own.backbone.attn_pool
    assert not torch.equal(ours.latent, drawn) and torch.equal(ours.latent, theirs.latent[..., :36])
    for part in range(2):  # keys, values
        assert torch.equal(ours.kv.weight[part * 36 :][:36], theirs.kv.weight[part * 48 :][:36, :36])
    assert torch.equal(ours.mlp.fc1.weight, theirs.mlp.fc1.weight[:144, :36])
    with pytest.raises(ParamsError, match="has no source, because the heads differ"):
        plan(own, tower(LARGE, 0, head="pooled"), params())
    assert plan(tower(SMALL, 1, head="pooled"), source, params(projector=False))


def test_a_students_head_is_a_head_of_its_teacher():
    """For inputs that are 0 in the dimensions that are left out, q, k and v of a head are the same numbers."""
    source, own = tower(LARGE, 0), tower(SMALL, 1)
    inherit(own, source, params())
    x = torch.randn(2, 5, 36)
    wide = torch.cat([x, torch.zeros(2, 5, 12)], dim=-1)
    ours = own.backbone.blocks[1].attn.qkv(x).unflatten(-1, (3, 3, 12))
    theirs = source.backbone.blocks[2].attn.qkv(wide).unflatten(-1, (3, 4, 12))
    torch.testing.assert_close(ours, theirs[:, :, :, :3])


def test_the_report_names_the_source_of_each_tensor():
    origins = plan(tower(SMALL), tower(LARGE), params())
    assert str(origins["backbone.blocks.1.attn.qkv.weight"]) == (
        "backbone.blocks.2.attn.qkv.weight: first 3 x 3 x 12 x 36 of 3 x 4 x 12 x 48"
    )
    assert str(origins["projector.layers.2.weight"]) == "projector.layers.2.weight: all"
    assert str(origins["backbone.pos_embed"]) == "backbone.pos_embed: first 1 x 17 x 36 of 1 x 17 x 48"


def test_another_grid_and_patch_size_are_interpolated():
    """A position embedding that is linear in the row stays so; a patch embedding sees a flat patch as before."""
    source = tower(LARGE, 0)
    own = tower(SMALL | {"img_size": 96, "patch_size": 12}, 1)  # 8 x 8 patches instead of 4 x 4
    with torch.no_grad():
        rows = torch.arange(4.0).repeat_interleave(4)[:, None].expand(16, 48)
        source.backbone.pos_embed.copy_(torch.cat([torch.full((1, 48), 7.0), rows])[None])
    origins = inherit(own, source, params())
    assert origins["backbone.pos_embed"].resampled and origins["backbone.patch_embed.proj.weight"].resampled
    positions = own.backbone.pos_embed[0].detach()
    assert torch.equal(positions[0], torch.full((36,), 7.0))
    grid = positions[1:].reshape(8, 8, 36)
    torch.testing.assert_close(grid, grid[:, :1, :1].expand(8, 8, 36))
    torch.testing.assert_close(grid[:, 0, 0].mean(), torch.tensor(1.5))
    assert (grid[:, 0, 0].diff() > 0).all()
    flat = [each.backbone.patch_embed.proj(torch.ones(1, 3, 24, 24)).mean((2, 3))[:, :36] for each in (own, source)]
    torch.testing.assert_close(flat[0], flat[1], atol=1e-4, rtol=1e-4)


def test_a_tower_without_class_token_takes_the_positions_of_patches():
    source, own = tower(LARGE, 0), tower(LARGE | {"class_token": False}, 1)
    inherit(own, source, params())
    assert torch.equal(own.backbone.pos_embed, source.backbone.pos_embed[:, 1:])


def test_a_head_may_be_drawn_anew():
    source, own = tower(LARGE, 0, hidden=20), tower(SMALL, 1)
    before = {name: weight.clone() for name, weight in own.projector.state_dict().items()}
    origins = inherit(own, source, params(projector=False))
    assert all(torch.equal(before[name], weight) for name, weight in own.projector.state_dict().items())
    assert {name for name, origin in origins.items() if str(origin) == NEW} == {f"projector.{name}" for name in before}


@pytest.mark.parametrize(
    ("own", "given", "changes", "message"),
    [
        (LARGE | {"depth": 6}, LARGE, {}, "6 blocks and its source 4"),
        (LARGE | {"embed_dim": 60, "num_heads": 5}, LARGE, {}, "the tower is larger than its source: .* 60"),
        (LARGE | {"mlp_ratio": 5}, LARGE, {}, "larger than its source: .*fc1.* is 240"),
        (SMALL | {"num_heads": 4}, LARGE, {}, "a head of the tower has 9 dimensions and one of its source 12"),
        (SMALL | {"reg_tokens": 2}, LARGE, {}, "reg_token has no source"),
        (SMALL | {"init_values": 0.1}, LARGE, {}, r"ls1\.gamma has no source"),
        (SMALL, LARGE | {"init_values": 0.1}, {}, r"the source has backbone\.blocks\.0\.ls1\.gamma.*the tower lacks"),
        (SMALL | {"act_layer": "quick_gelu"}, LARGE, {}, "is QuickGELU.*and in its source GELU"),
        (SMALL | {"no_embed_class": True}, LARGE, {}, "no_embed_class"),
        (SMALL, LARGE, {"blocks": [0, 4]}, r"inherit.blocks: \[0, 4\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(own, given, changes, message):
    with torch.device("meta"):
        towers = [
            ImageTower(ModelParams(backbone_options=options, image_size=32), hidden=10, facets=2)
            for options in (own, given)
        ]
    with pytest.raises(ParamsError, match=message):
        plan(*towers, params(**changes))


def test_other_pixels_are_refused():
    """A CLIP's are the same whichever name they go by; those of timm's ImageNet ViT differ."""
    plain = {"backbone": "vit_tiny_patch16_224"}
    with pytest.raises(ParamsError, match=r"model\.pixels clip, and there timm\): take the same"):
        plan(tower(SMALL, **plain), tower(LARGE, pixels="timm", **plain), params())
    with pytest.raises(ParamsError, match=r"model\.pixels timm, and there clip"):
        plan(tower(LARGE, pixels="timm", **plain), tower(LARGE, **plain), params())
    assert plan(tower(SMALL, pixels="timm", **plain), tower(LARGE, pixels="timm", **plain), params())
    assert plan(tower(SMALL, pixels="timm"), tower(LARGE), params())


def test_other_spaces_and_other_heads_are_refused():
    with pytest.raises(ParamsError, match=r"10 dimensions and its source 20.*projector to false"):
        plan(tower(SMALL), tower(LARGE, hidden=20), params())
    with pytest.raises(ParamsError, match=r"the heads differ"):
        plan(tower(SMALL), tower(LARGE, head="pooled"), params())


def test_another_architecture_is_inherited_only_whole():
    parallel = {"backbone": "vit_small_patch16_18x2_224"}
    same, source = tower(LARGE, 1, **parallel), tower(LARGE, 0, **parallel)
    pictures = torch.randn(1, 3, 32, 32)
    inherit(same, source, params())
    assert torch.equal(same.z(pictures), source.z(pictures))
    with pytest.raises(ParamsError, match=r"the tower \(ParallelThingsBlock\) cannot be cut"):
        plan(tower(SMALL, **parallel), source, params())
