"""The head `linear` with the weights of a CLIP's picture side gives the CLIP's own vectors."""

from __future__ import annotations

import json

import timm
import torch
from torch.nn import functional as F

from flame_core.layout import Layout
from flame_core.params import ModelParams
from flame_core.vision.initial_weights import fetch_initial_weights, load_initial_weights
from flame_core.vision.tower import ImageTower

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}


def test_it_is_the_models_own_classifier_on_the_class_token(tmp_path):
    torch.manual_seed(0)
    clip = timm.create_model("vit_base_patch16_clip_224", num_classes=12, **SMALL).eval()
    with torch.no_grad():
        clip.head.weight.normal_()
        clip.head.bias.normal_()
    torch.save({**clip.state_dict(), "fc_norm.weight": torch.ones(64)}, tmp_path / "clip.pth")
    params = ModelParams.model_validate(
        {
            "backbone": "vit_base_patch16_clip_224",
            "backbone_options": SMALL,
            "image_size": 16,
            "head": "linear",
            "init": {"source": "path:clip.pth"},
        }
    )
    found = fetch_initial_weights(params, Layout(tmp_path, tmp_path))
    assert json.loads((found.folder / "weights.json").read_bytes())["left_out"] == ["fc_norm.weight"]
    tower = ImageTower(params, hidden=12, facets=1).eval()
    head = tower.projector.layers
    assert isinstance(head, torch.nn.Linear) and len(found.contents) == 2
    load_initial_weights(tower.backbone, found.folder, head)
    pictures = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(tower.z(pictures)[:, 0], F.normalize(clip(pictures), dim=-1), atol=1e-5, rtol=1e-4)
