"""Backbones with a feature map, and backbones of which only a part learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from flame_core.errors import ParamsError
from flame_core.params import LastBlocks, ModelParams, TrainParams
from flame_core.suite.models.trained import patch_grid
from flame_core.vision.frozen_backbone import freeze_backbone, require_statistics
from flame_core.vision.tower import ImageTower


def tower(backbone: str, **model: Any) -> ImageTower:
    torch.manual_seed(0)
    return ImageTower(ModelParams(backbone=backbone, image_size=64, head="pooled", **model), hidden=6, facets=1)


@pytest.mark.parametrize(("backbone", "axes"), [("test_efficientnet", (2, 3)), ("test_convnext", (2, 3))])
def test_each_place_of_a_map_is_a_token(backbone, axes):
    made = tower(backbone).eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found = made(pictures, ("z", "pooled", "patches"))
        mean = made.backbone.forward_features(pictures).mean(dim=axes)
        assert found["patches"].shape == (2, 4, made.backbone.num_features)
        torch.testing.assert_close(found["pooled"], mean)
        torch.testing.assert_close(found["z"][:, 0], normalize(made.projector.layers(mean), dim=-1))
        torch.testing.assert_close(made(mean)["z"], found["z"])  # of stored vectors


def test_merged_patches_lie_where_the_map_has_them():
    options = {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    params = ModelParams(backbone="swin_tiny_patch4_window7_224", backbone_options=options, image_size=64)
    made = ImageTower(params, hidden=6, facets=1).eval()
    pictures = torch.randn(2, 3, 64, 64)
    assert made.backbone.patch_embed.grid_size == (16, 16)  # of what it begins with
    with torch.inference_mode():
        grid = patch_grid(made, pictures)
        there = made.projector.layers(made.backbone.forward_features(pictures))  # [B, 2, 2, D]
    torch.testing.assert_close(grid, normalize(there, dim=-1))


def test_pixels_are_normalised_as_timm_says():
    made = tower("test_efficientnet", pixels="timm").eval()
    raw = torch.rand(2, 3, 64, 64)
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    seen = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    theirs = (raw - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    torch.testing.assert_close(made.as_backbone_sees(seen), theirs)
    assert made.state_dict().keys() == tower("test_efficientnet").state_dict().keys()


def test_batch_norms_keep_what_they_came_with():
    made = tower("test_efficientnet")
    assert made.backbone.conv_stem.training
    before = {name: value.clone() for name, value in made.backbone.named_buffers()}
    made(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in made.backbone.named_buffers())
    random = TrainParams.model_validate({"model": {"backbone": "test_efficientnet"}})
    with pytest.raises(ParamsError, match=r"has batch norms, .*name trained weights in model\.init"):
        require_statistics(made.backbone, random)
    require_statistics(tower("test_convnext").backbone, random)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext", "test_vit"])
def test_only_the_last_blocks_and_what_follows_them_learn(backbone):
    made = tower(backbone).backbone
    part = made.stages if backbone == "test_convnext" else made.blocks
    freeze_backbone(made, LastBlocks(last_blocks=1))
    learn = {name for name, weight in made.named_parameters() if weight.requires_grad}
    name = "stages" if backbone == "test_convnext" else "blocks"
    last = f"{name}.{len(part) - 1}."
    behind = {"test_efficientnet": {"conv_head", "bn2"}, "test_convnext": set(), "test_vit": {"norm"}}[backbone]
    assert {weight.split(".")[0] for weight in learn if not weight.startswith(last)} == behind
    assert any(weight.startswith(last) for weight in learn)
    assert not any(module.training for module in part[0].modules())
    assert part[-1].training and not any(m.training for m in made.modules() if isinstance(m, _BatchNorm))


def test_none_of_the_backbone_learns_and_too_many_blocks_are_refused():
    made = tower("test_vit").backbone
    with pytest.raises(ParamsError, match=r"last_blocks 99, and the backbone has \d+ blocks; take fewer, or all"):
        freeze_backbone(made, LastBlocks(last_blocks=99))
    freeze_backbone(made, "none")
    assert not any(weight.requires_grad for weight in made.parameters())
    assert not any(module.training for module in made.modules())
    with pytest.raises(ParamsError, match="not known what the blocks of ResNet are"):
        freeze_backbone(tower("test_resnet").backbone, LastBlocks(last_blocks=1))
