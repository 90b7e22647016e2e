import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flame_core.params import ModelParams
from flame_core.vision.mixed_precision import PatchProduct, multiply_patches
from flame_core.vision.tower import ImageTower

OPTIONS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("height", [32, 39])  # 7 rows that fill no patch, as 6 of 384 with patches of 14
def test_patches_as_a_product_are_the_convolution(bias, height, monkeypatch):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 10, 8, 8, bias=bias)
    pictures = torch.randn(2, 3, height, 24)
    expected = conv(pictures)
    backbone = nn.Module()
    backbone.patch_embed = nn.Module()
    backbone.patch_embed.proj = conv
    multiply_patches(backbone)
    assert type(conv) is PatchProduct
    assert torch.equal(conv(pictures), expected)  # on a CPU it stays the convolution
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    torch.testing.assert_close(conv(pictures), expected, rtol=1e-5, atol=1e-5)


def test_overlapping_patches_stay_a_convolution():
    backbone = nn.Module()
    backbone.patch_embed = nn.Module()
    backbone.patch_embed.proj = nn.Conv2d(3, 10, 8, 4)
    multiply_patches(backbone)
    assert type(backbone.patch_embed.proj) is nn.Conv2d


def test_the_residual_stream_keeps_autocasts_type():
    tower = ImageTower(ModelParams(backbone_options=OPTIONS, image_size=32), hidden=10, facets=1)
    types = []
    for block in tower.backbone.blocks:
        block.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    pictures = torch.randn(2, 3, 32, 32)
    tower(pictures)
    with torch.autocast("cpu", torch.bfloat16):
        z = tower.z(pictures)
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert F.cosine_similarity(z, tower.z(pictures), dim=-1).min() > 0.999
