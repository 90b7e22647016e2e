"""Rates by layer are timm's, for a ViT and for backbones with a feature map."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from timm.optim import param_groups_layer_decay

from flame_core.errors import ParamsError
from flame_core.params import ModelParams
from flame_core.vision.layer_rates import layer_rates
from flame_core.vision.tower import create_backbone


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext"])
def test_each_layer_has_the_rate_that_timm_gives_it(name):
    options = {"img_size": 32} if name == "test_vit" else {}
    params = ModelParams(backbone=name, backbone_options=options, image_size=32, head="pooled")
    backbone = create_backbone(params)
    backbone.requires_grad_(True)
    rates = layer_rates(backbone, 0.5)
    names = {id(weight): name for name, weight in backbone.named_parameters()}
    groups = param_groups_layer_decay(backbone, layer_decay=0.5)
    assert {names[id(w)]: group["lr_scale"] for group in groups for w in group["params"]} == rates
    assert len(set(rates.values())) > 3 and max(rates.values()) == 1.0


def test_of_a_vit_the_last_block_has_the_whole_rate_under_the_head_that_has_no_norm():
    params = ModelParams(backbone="test_vit", backbone_options={"img_size": 32}, image_size=32)
    depth = len(create_backbone(params).blocks)
    rates = layer_rates(create_backbone(params), 0.5)
    assert [rates[f"blocks.{i}.mlp.fc1.weight"] for i in range(depth)] == [0.5 ** (depth - 1 - i) for i in range(depth)]
    assert rates["patch_embed.proj.weight"] == rates["pos_embed"] == 0.5**depth


def test_unknown_layers_are_told():
    with pytest.raises(ParamsError, match=r"layer_decay: timm does not know the layers of SimpleNamespace"):
        layer_rates(SimpleNamespace(), 0.5)
