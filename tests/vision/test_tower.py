from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import save_file
from torch.nn import functional as F

from flame_core.digest import write_json
from flame_core.errors import InputError, ParamsError
from flame_core.params import ModelParams, TrainParams
from flame_core.settings import Settings
from flame_core.vision.image_encoder import ImageEncoder, load_encoder
from flame_core.vision.tower import ImageTower, require_features

OPTIONS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def model_params(**changes) -> ModelParams:
    return ModelParams.model_validate({"backbone_options": OPTIONS, "image_size": 32} | changes)


def test_z_is_the_unit_mean_of_projected_patches_without_cls():
    torch.manual_seed(0)
    tower = ImageTower(model_params(), hidden=10, facets=1).eval()
    pictures = torch.randn(3, 3, 32, 32)
    tokens = tower.backbone.forward_features(pictures)  # [3, 17, 24]: CLS and 16 patches
    assert tokens.shape == (3, 17, 24)
    linear1, gelu, linear2, norm = tower.projector.layers
    each = torch.stack([norm(linear2(gelu(linear1(tokens[:, 1 + i])))) for i in range(16)])
    torch.testing.assert_close(tower.z(pictures), F.normalize(each.mean(0), dim=-1)[:, None])


def test_a_pooled_head_maps_the_mean_patch_behind_the_final_norm():
    """LIFT's head, written out with the backbone's own blocks."""
    torch.manual_seed(0)
    tower = ImageTower(model_params(head="pooled"), hidden=10, facets=1).eval()
    backbone = tower.backbone
    with torch.no_grad():
        backbone.norm.bias.normal_()  # a fresh LayerNorm's mean would be that of any other
    x = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(pictures := torch.randn(3, 3, 32, 32))))
    for block in backbone.blocks:
        x = block(x)
    pooled = backbone.norm(x)[:, 1:].mean(dim=1)
    linear1, gelu, linear2 = tower.projector.layers
    torch.testing.assert_close(tower.z(pictures), F.normalize(linear2(gelu(linear1(pooled))), dim=-1)[:, None])
    assert all(weight.requires_grad for weight in tower.parameters())


def test_an_attention_head_maps_what_its_query_finds_behind_the_final_norm():
    """SigLIP's pooling, written out: one query for each head, softmax over the patches, then an MLP beside it."""
    torch.manual_seed(0)
    tower = ImageTower(model_params(head="attention"), hidden=10, facets=1).eval()
    pooling, pictures = tower.backbone.attn_pool, torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        pooling.latent.normal_()
    patches = tower.backbone.norm(_before_the_norm(tower.backbone, pictures))[:, 1:]
    q = pooling.q(pooling.latent)[0, 0]  # [24]
    keys, values = pooling.kv(patches).chunk(2, dim=-1)  # [3, 16, 24]
    found = torch.empty(3, 24)
    for head in (slice(0, 12), slice(12, 24)):
        weights = (keys[..., head] @ q[head] / 12**0.5).softmax(dim=1)
        found[:, head] = (weights[..., None] * values[..., head]).sum(dim=1)
    found = pooling.proj(found)
    found = found + pooling.mlp(pooling.norm(found))
    torch.testing.assert_close(tower.z(pictures), F.normalize(tower.projector.layers(found), dim=-1)[:, None])
    only_z = {id(weight) for weight in tower.head_parts().parameters()}
    assert only_z == {id(weight) for part in (tower.projector, pooling) for weight in part.parameters()}


def _before_the_norm(backbone, pictures):
    x = backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(pictures)))
    for block in backbone.blocks:
        x = block(x)
    return x


def test_features_are_those_asked_for():
    tower = ImageTower(model_params(), hidden=10, facets=1).eval()
    pictures = torch.randn(3, 3, 32, 32)
    tokens = tower.backbone.forward_features(pictures)
    every = tower(pictures, ("z", "pooled", "cls", "patches"))
    assert {name: value.shape for name, value in every.items()} == {
        "z": (3, 1, 10),
        "pooled": (3, 24),
        "cls": (3, 24),
        "patches": (3, 16, 24),
    }
    torch.testing.assert_close(every["cls"], tokens[:, 0])
    torch.testing.assert_close(every["patches"], tokens[:, 1:])
    torch.testing.assert_close(every["pooled"], tokens[:, 1:].mean(dim=1))
    assert tower(pictures, ("cls",)).keys() == {"cls"}


@pytest.mark.parametrize(
    ("options", "reads", "message"),
    [
        (
            {},
            {"z", "claws"},
            "the term x reads claws, which no tower has; known features: cls, patches, pooled, prompts, z",
        ),
        ({"class_token": False}, {"cls"}, "the term x reads the CLS token, but the backbone VisionTransformer"),
    ],
)
def test_a_feature_that_is_not_there_is_refused_by_name(options, reads, message):
    tower = ImageTower(model_params(backbone_options=OPTIONS | options), hidden=10, facets=1)
    with pytest.raises(ParamsError, match=message):
        require_features(tower.backbone, reads, "the term x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vit_none"}, "vit_none"),
        ({"backbone_options": OPTIONS | {"dpth": 3}}, "dpth"),
        ({"image_size": 48}, "48 px"),
        ({"backbone": "test_convnext"}, r"img_size'\. An option that is for another backbone goes if it is null"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ParamsError, match=message):
        ImageTower(model_params(**changes), hidden=10, facets=1)


def test_an_option_that_is_null_is_that_of_the_backbone():
    params = model_params(backbone="test_convnext", backbone_options=dict.fromkeys(OPTIONS))
    assert ImageTower(params, hidden=10, facets=1).gives_map


def saved(folder: Path) -> ImageTower:
    torch.manual_seed(0)
    recipe = TrainParams(model=model_params(), cpu_threads=1)
    tower = ImageTower(recipe.model, hidden=10, facets=1).eval()
    save_file(tower.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", {"recipe": recipe.model_dump(mode="json"), "hidden": 10, "facets": ["raw/1"]})
    return tower


def test_decoding_threads_and_precision(tmp_path, monkeypatch):
    """Threads change no bit; bfloat16 changes the third digit."""
    saved(tmp_path)
    jpegs = []
    for seed in range(11):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    alone = load_encoder(tmp_path, "cpu").encode(jpegs, batch_size=4)
    monkeypatch.setattr("flame_core.vision.prepared_batches.settings", lambda: Settings(loader_workers=3))
    np.testing.assert_array_equal(load_encoder(tmp_path, "cpu").encode(jpegs, batch_size=4), alone)
    half = load_encoder(tmp_path, "cpu", "bfloat16").encode(jpegs, batch_size=4)
    assert half.dtype == np.float32 and 1e-5 < np.abs(half - alone).max() < 0.05
    with pytest.raises(UnidentifiedImageError):
        load_encoder(tmp_path, "cpu").encode([*jpegs, b"no picture"], batch_size=4)


def test_a_saved_model_encodes_the_same(tmp_path):
    tower = saved(tmp_path)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (255, 0, 0)).save(buffer, "PNG")
    encoder = load_encoder(tmp_path, "cpu")
    z = encoder.encode([buffer.getvalue()] * 3, batch_size=2)
    from flame_core.vision.views import evaluation_picture, normalised

    with torch.inference_mode():
        expected = tower.z(normalised(evaluation_picture(buffer.getvalue(), 32)[None]))[:, 0].numpy()
    np.testing.assert_allclose(z, np.repeat(expected, 3, axis=0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)


def test_a_model_of_another_shape_is_refused_with_its_folder(tmp_path):
    recipe = TrainParams(model=model_params(), cpu_threads=1)
    save_file(ImageTower(recipe.model, hidden=12, facets=1).state_dict(), tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"recipe": recipe.model_dump(mode="json"), "hidden": 10, "facets": ["raw/1"]})
    with pytest.raises(InputError, match=f"{tmp_path.name} is not a usable model"):
        load_encoder(tmp_path, "cpu")


def test_a_model_whose_weights_are_not_finite_is_refused_with_the_weight(tmp_path):
    recipe = TrainParams(model=model_params(), cpu_threads=1)
    weights = ImageTower(recipe.model, hidden=10, facets=1).state_dict()
    weights["backbone.cls_token"] = weights["backbone.cls_token"] * float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"recipe": recipe.model_dump(mode="json"), "hidden": 10, "facets": ["raw/1"]})
    with pytest.raises(InputError, match=r"not a usable model \(the weight backbone\.cls_token is not finite\)"):
        load_encoder(tmp_path, "cpu")


def test_a_gpu_that_is_named_by_number_is_waited_for_too(monkeypatch):
    """What is copied to host memory in the background must have arrived before it is read."""
    tower = ImageTower(model_params(), hidden=10, facets=1)
    encoder = ImageEncoder(tower, {"recipe": {"model": {"image_size": 32}, "cpu_threads": 1}}, "cpu")
    waited = []
    monkeypatch.setattr(
        "flame_core.vision.image_encoder.prepared_batches",
        lambda *given: [torch.zeros(1, 32, 32, 3, dtype=torch.uint8)],
    )
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    encoder.encode([b""])
    encoder._device = torch.device("cuda:0")
    encoder.encode([b""])
    assert waited == [torch.device("cuda:0")]
