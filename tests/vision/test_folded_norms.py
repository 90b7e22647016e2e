"""Training on a GPU computes the affine part of norms in the maps that read them; here a GPU is pretended."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from flame_core.params import ModelParams
from flame_core.vision.folded_norms import FoldedNorm, LinearAfterNorm
from flame_core.vision.tower import ImageTower

OPTIONS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def tower_of(**options: object) -> ImageTower:
    torch.manual_seed(0)
    tower = ImageTower(ModelParams(backbone_options=OPTIONS | options, image_size=16), hidden=10, facets=1).double()
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return tower


def result(tower: nn.Module, pictures: Tensor) -> dict[str, Tensor]:
    """Patch tokens, and the gradients of a loss of them."""
    assert isinstance(tower, ImageTower)
    tower.zero_grad()
    patches = tower.patches(pictures)
    (patches * torch.linspace(-1, 1, patches.numel(), dtype=patches.dtype).view_as(patches)).sum().backward()
    gradients = {name: p.grad for name, p in tower.backbone.named_parameters() if p.grad is not None}
    return {"patches": patches.detach(), **gradients}


@pytest.fixture
def on_gpu(monkeypatch):
    return lambda: monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}])
def test_folded_norms_give_the_same_tokens_and_gradients(on_gpu, options):
    tower, pictures = tower_of(**options), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    expected = result(tower, pictures)
    on_gpu()
    found = result(tower, pictures)
    assert found.keys() == expected.keys()
    assert "blocks.1.norm2.weight" in found and "blocks.0.norm1.bias" in found
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_norms_do_no_affine_part_themselves(on_gpu):
    tower = tower_of()
    norm = tower.backbone.blocks[0].norm1
    on_gpu()
    values = norm(torch.randn(2, 5, 24, dtype=torch.float64))
    torch.testing.assert_close(values.mean(dim=-1), torch.zeros(2, 5, dtype=torch.float64), rtol=0, atol=1e-9)
    assert not torch.allclose(norm.eval()(values).mean(dim=-1), torch.zeros(2, 5, dtype=torch.float64), atol=1e-3)


def test_weights_keep_their_names_and_a_copy_its_own_norms(on_gpu):
    tower = tower_of()
    names = [name for name, _ in tower.named_parameters()]
    assert len(names) == len(set(names)) and "backbone.blocks.0.norm1.weight" in names
    assert not [name for name in tower.state_dict() if "norm_of" in name]
    other = copy.deepcopy(tower)
    block = other.backbone.blocks[0]
    assert block.attn.qkv.norm_of[0] is block.norm1 and block.norm1 is not tower.backbone.blocks[0].norm1
    block.norm1.requires_grad_(False).eval()  # frozen: the norm does its affine part, and the map knows
    pictures = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = tower.patches(pictures)
    on_gpu()
    torch.testing.assert_close(other.patches(pictures), expected, rtol=1e-9, atol=1e-9)


def test_a_gate_that_reads_the_norm_too_prevents_folding():
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block

    from flame_core.vision.folded_norms import fold_norms

    backbone = nn.Module()
    backbone.blocks = nn.ModuleList([Block(24, 2)])
    attention = backbone.blocks[0].attn
    assert isinstance(attention, Attention)
    attention.gate = nn.Linear(24, 24)
    fold_norms(backbone)
    assert not isinstance(backbone.blocks[0].norm1, FoldedNorm)
    assert isinstance(backbone.blocks[0].mlp.fc1, LinearAfterNorm)


def test_in_bfloat16_folding_costs_no_accuracy(on_gpu):
    tower, pictures = tower_of().float(), torch.randn(8, 3, 16, 16)
    exact = result(tower, pictures)

    def errors() -> dict[str, float]:
        with torch.autocast("cpu", torch.bfloat16):
            found = result(tower, pictures)
        return {name: ((found[name].float() - value).norm() / value.norm()).item() for name, value in exact.items()}

    usual = errors()
    on_gpu()
    for name, own in errors().items():
        assert own < 1.5 * usual[name] + 0.005, name
