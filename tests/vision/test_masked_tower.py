"""A masked tower and the smaller one that is cut out of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.params import ModelParams, SizesParams
from flame_core.vision.block_sizes import block_weights, require_sizes, resize, sizes_in, sizes_of
from flame_core.vision.masked_tower import Masked, Masks, prune
from flame_core.vision.tower import ImageTower
from tests.vision.test_inheritance import LARGE, tower

VARIANTS: list[dict[str, Any]] = [
    {},
    {"backbone": "vit_tiny_patch16_224"},
    {"head": "pooled"},
    {"head": "cls"},
    {"head": "linear"},
    {"head": "gated"},
    {"options": {"init_values": 0.3, "qk_norm": True, "reg_tokens": 2}},
]


def variant(changes: dict[str, Any]) -> ImageTower:
    changes = dict(changes)
    return tower(LARGE | changes.pop("options", {}), **changes)


def masks_for(made: ImageTower, seed: int, soft: bool) -> Masks:
    """Random masks of which about a third is 0 and, if `soft`, the others anything up to 1."""
    drawn = torch.Generator().manual_seed(seed)

    def mask(n: int) -> torch.Tensor:
        kept = (torch.rand(n, generator=drawn) > 0.35).float()
        kept[int(torch.randint(n, (), generator=drawn))] = 1.0  # at least one
        return kept * (0.2 + 0.8 * torch.rand(n, generator=drawn)) if soft else kept

    sizes = sizes_of(made.backbone)
    return Masks(mask(sizes.width), [mask(n) for n in sizes.heads], [mask(n) for n in sizes.intermediate])


def ones(made: ImageTower) -> Masks:
    zeros = masks_for(made, 0, soft=False)
    return Masks(
        torch.ones_like(zeros.hidden), *([torch.ones_like(m) for m in x] for x in (zeros.heads, zeros.intermediate))
    )


@pytest.mark.parametrize("changes", VARIANTS)
def test_with_masks_of_ones_nothing_changes_bit_for_bit(changes):
    made = variant(changes)
    pictures = torch.randn(2, 3, 32, 32)
    plain = made(pictures, ("z", "patches"))
    masked = Masked(made.backbone)
    assert torch.equal(made(pictures)["z"], plain["z"])
    masked.masks = ones(made)
    found = made(pictures, ("z", "patches"))
    assert torch.equal(found["z"], plain["z"]) and torch.equal(found["patches"], plain["patches"])
    masked.remove()
    assert torch.equal(made(pictures)["z"], plain["z"])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("changes", VARIANTS)
def test_the_pruned_tower_computes_what_the_masked_one_does(changes, soft):
    made = variant(changes)
    pictures = torch.randn(3, 3, 32, 32)
    plain = made.z(pictures)
    masks = masks_for(made, 1, soft)
    masked = Masked(made.backbone)
    masked.masks = masks
    expected = made(pictures, ("z", "patches"))
    masked.remove()
    prune(made, masks)
    found = made(pictures, ("z", "patches"))
    torch.testing.assert_close(found["z"], expected["z"], atol=1e-6, rtol=0)
    kept = masks.hidden.nonzero().flatten()
    torch.testing.assert_close(found["patches"], expected["patches"][..., kept], atol=1e-5, rtol=1e-5)
    assert (expected["z"] - plain).abs().max() > 1e-2  # the masks do something


def test_a_dimension_with_mask_0_is_0_everywhere():
    made = variant({"head": "pooled"})
    masked = Masked(made.backbone)
    masked.masks = masks_for(made, 2, soft=True)
    patches = made(torch.randn(2, 3, 32, 32), ("patches",))["patches"]
    assert torch.equal(
        patches[..., masked.masks.hidden == 0], torch.zeros(2, 16, int((masked.masks.hidden == 0).sum()))
    )


def test_a_pruned_tower_is_made_again_from_its_sizes():
    made = variant({"options": {"init_values": 0.3, "reg_tokens": 2}})
    masks = masks_for(made, 3, soft=True)
    prune(made, masks)
    sizes = sizes_of(made.backbone)
    assert sizes.width == int((masks.hidden > 0).sum()) and sizes.heads == [int((m > 0).sum()) for m in masks.heads]
    params = ModelParams(backbone_options=LARGE | {"init_values": 0.3, "reg_tokens": 2}, image_size=32, sizes=sizes)
    again = ImageTower(params, hidden=10, facets=2).eval()
    again.load_state_dict(made.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.z(pictures), made.z(pictures))
    assert sizes_in(made.state_dict(), again.backbone, "backbone.") == sizes
    weights = {name: w for name, w in made.state_dict().items() if "blocks." in name and w.ndim > 1}
    assert block_weights(sizes, 12) == sum(w.numel() for w in weights.values())


def test_a_tower_of_given_sizes_trains():
    sizes = SizesParams(width=29, heads=[1, 3, 2, 4], intermediate=[7, 100, 1, 192])
    made = ImageTower(ModelParams(backbone_options=LARGE, image_size=32, sizes=sizes), hidden=10, facets=2)
    made.z(torch.randn(2, 3, 32, 32))[..., 0].sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in made.parameters())
    with torch.device("meta"):
        empty = ImageTower(ModelParams(backbone_options=LARGE, image_size=32, sizes=sizes), hidden=10, facets=2)
    assert {n: w.shape for n, w in empty.state_dict().items()} == {n: w.shape for n, w in made.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"width": 49}, {}, r"sizes.width: 49 of 48 in the backbone: take at most 48"),
        ({"heads": [4, 4, 4, 5]}, {}, r"sizes.heads: 5 of 4"),
        ({"heads": [4, 4]}, {}, r"sizes.heads: 2 numbers, and the backbone has 4 blocks"),
        ({"intermediate": [193] * 4}, {}, r"sizes.intermediate: 193 of 192"),
        ({}, {"scale_attn_norm": True}, "a gate or a norm inside attention or MLP"),
    ],
)
def test_sizes_that_cannot_be_cut_out_are_refused(changes, options, message):
    sizes = SizesParams(**{"width": 48, "heads": [4] * 4, "intermediate": [192] * 4} | changes)
    with pytest.raises(ParamsError, match=message):
        require_sizes(tower(LARGE | options).backbone, sizes)


def test_the_first_dimensions_heads_and_units_are_kept():
    made, small = tower(LARGE), tower(LARGE)
    resize(small.backbone, 36, [3] * 4, [100] * 4)
    whole, part = (x.backbone.blocks[1] for x in (made, small))
    qkv = whole.attn.qkv.weight.unflatten(0, (3, 4, 12))[:, :3, :, :36]
    assert torch.equal(part.attn.qkv.weight.unflatten(0, (3, 3, 12)), qkv)
    assert torch.equal(part.mlp.fc2.weight, whole.mlp.fc2.weight[:36, :100])
