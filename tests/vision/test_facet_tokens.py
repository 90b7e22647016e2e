"""Facet tokens in the ViT: they change neither the patches nor each other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flame_core.errors import ParamsError
from flame_core.params import ModelParams
from flame_core.vision.facet_tokens import FacetTokens, facet_mask
from flame_core.vision.tower import ImageTower

OPTIONS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
FACETS = 4


def tower(blocks, recompute: bool = False, **changes) -> ImageTower:
    torch.manual_seed(0)
    options = {"backbone_options": OPTIONS, "image_size": 32, "checkpoint_activations": recompute}
    made = ImageTower(ModelParams.model_validate(options | {"facet_blocks": blocks} | changes), 10, FACETS)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "qkv.weight" in name:
                weight.mul_(8)  # attention far from uniform
        if made.facet_tokens is not None:
            made.facet_tokens.tokens.normal_()
    return made.eval()


def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("blocks", [1, 2, "all"])
def test_patches_are_what_they_are_without_facet_tokens(blocks):
    with_facets = tower(blocks)
    plain = tower(None)
    plain.load_state_dict({n: w for n, w in with_facets.state_dict().items() if not n.startswith("facet_tokens")})
    torch.testing.assert_close(with_facets.z(pictures())[:, :1], plain.z(pictures()), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("blocks", [1, "all"])
def test_a_facet_is_unchanged_by_another_facet(blocks):
    made = tower(blocks)
    before = made.z(pictures())
    with torch.no_grad():
        made.facet_tokens.tokens[1] += 3.0
    after = made.z(pictures())
    others = [0, 1, 3, 4]  # z_0, facets 1, 3 and 4
    torch.testing.assert_close(after[:, others], before[:, others], atol=1e-6, rtol=1e-5)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-2


def test_a_facet_is_a_pass_with_that_token_alone():
    """The oracle: the backbone's own blocks on the patches and one more token, which no patch may see."""
    made = tower("all")
    backbone = made.backbone
    x = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(pictures()))))
    found = made.z(pictures())
    for facet in range(FACETS):
        tokens = torch.cat([x, made.facet_tokens.tokens[facet].expand(3, 1, -1)], dim=1)
        mask = torch.ones(18, 18, dtype=torch.bool)
        mask[:17, 17] = False
        for block in backbone.blocks:
            tokens = block(tokens, attn_mask=mask)
        expected = F.normalize(made.projector.layers(tokens[:, 17]), dim=-1)
        torch.testing.assert_close(found[:, 1 + facet], expected, atol=1e-6, rtol=1e-5)


def test_the_mask_written_out():
    expected = [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    assert facet_mask(3, 2, torch.device("cpu")).int().tolist() == expected


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        made = tower(2, recompute).train()
        made.z(pictures()).square().mul(torch.arange(10.0)).sum().backward()
        gradients.append({name: p.grad for name, p in made.named_parameters()})
    for name, expected in gradients[0].items():
        assert expected is not None and expected.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], expected, msg=lambda m, n=name: f"{n}: {m}")


def test_a_backbone_without_room_for_facet_tokens_is_refused():
    with pytest.raises(ParamsError, match=r"facet_blocks: 4, .*VisionTransformer has 3 blocks"):
        tower(4)
    with pytest.raises(ParamsError, match="facet_blocks: all, and the backbone Linear has no patch_embed"):
        FacetTokens(torch.nn.Linear(2, 2), 2, "all")
