"""The connector: prompts of a tower's patches, at the scale of the LLM's input, saved with the tower."""

from __future__ import annotations

import json

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.files.weights import save_weights
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import ConnectorParams, InheritParams, ModelParams
from flame_core.vision.connector import Connector
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.inheritance import NEW, plan
from flame_core.vision.tower import ImageTower, require_features

OPTIONS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
SIZES = {"prompts": 5, "width": 32, "layers": 2, "heads": 4}


def tower(**changes) -> ImageTower:
    torch.manual_seed(0)
    params = ModelParams.model_validate({"backbone_options": OPTIONS, "image_size": 16, "connector": SIZES, **changes})
    return ImageTower(params, hidden=8, facets=1, prompt_dims=40)


def test_prompts_have_the_shape_and_the_scale_that_is_asked_for():
    torch.manual_seed(0)
    connector = Connector(24, ConnectorParams(prompts=6, width=64, layers=1, heads=4), hidden=48)
    connector.start_at(0.05)
    v = connector(torch.randn(50, 9, 24) * 7 + 3)
    assert v.shape == (50, 6, 48)
    assert float(v.square().mean().sqrt()) == pytest.approx(0.05, rel=0.2)
    assert float((v[:, 0] - v[:, 1]).square().mean().sqrt()) > 0.02  # queries differ
    assert float(v.std(dim=0).mean()) > 0.005  # and pictures do


def test_attention_is_that_of_its_formula_and_patches_have_no_order():
    torch.manual_seed(0)
    layer = Connector(24, ConnectorParams(prompts=3, width=16, layers=1, heads=2), hidden=4).layers[0]
    q, patches = torch.randn(2, 3, 16), torch.randn(2, 7, 24)
    query, key, value = layer.query(layer.norm1(q)), layer.key(patches), layer.value(patches)
    heads = []
    for head in (slice(0, 8), slice(8, 16)):
        weights = (query[..., head] @ key[..., head].transpose(1, 2) / 8**0.5).softmax(dim=-1)
        heads.append(weights @ value[..., head])
    expected = q + layer.out(torch.cat(heads, dim=-1))
    expected = expected + layer.mlp(layer.norm2(expected))
    torch.testing.assert_close(layer(q, patches), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(q, patches.flip(1)), expected, rtol=1e-5, atol=1e-5)


def test_a_tower_has_prompts_beside_its_other_features_and_keeps_them_in_its_folder(tmp_path):
    own = tower().eval()
    assert own.connector is not None
    own.connector.start_at(0.3)
    pictures = torch.randn(2, 3, 16, 16)
    found = own(pictures, ("z", "prompts"))
    assert found["prompts"].shape == (2, 5, 40)
    assert torch.equal(found["z"], own(pictures)["z"]) and "prompts" not in own(pictures)
    save_weights(own, tmp_path / WEIGHTS)
    recipe = {"model": {"backbone_options": OPTIONS, "image_size": 16, "connector": SIZES}}
    (tmp_path / CONFIG).write_text(json.dumps({"recipe": recipe, "hidden": 8, "facets": ["raw/1"]}))
    loaded, _ = load_tower(tmp_path)
    assert torch.equal(loaded(pictures, ("prompts",))["prompts"], found["prompts"])


def test_a_tower_without_a_connector_is_as_before():
    assert tower(connector=None).connector is None
    assert not any(name.startswith("connector") for name in tower(connector=None).state_dict())
    assert ModelParams().model_dump().keys() == {
        "backbone",
        "backbone_options",
        "image_size",
        "facet_blocks",
        "checkpoint_activations",
    }
    require_features(tower().backbone, {"prompts"}, "a term")


def test_a_connector_is_inherited_whole_or_drawn_anew():
    own = tower()
    origins = plan(own, tower(), InheritParams(path="x"))
    assert str(origins["connector.queries"]).endswith("all")
    for source in (tower(connector=None), tower(connector={**SIZES, "prompts": 4})):
        origins = plan(own, source, InheritParams(path="x"))
        assert {origin.name for name, origin in origins.items() if name.startswith("connector.")} == {NEW}
    assert plan(tower(connector=None), own, InheritParams(path="x"))


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="heads 3 does not divide the width 16"):
        ConnectorParams(width=16, heads=3)


def test_it_cannot_be_exported(tmp_path):
    from flame_core.export.formats import export

    class Subject:
        params = tower_params = ModelParams(connector=ConnectorParams())
        tuned = None

    with pytest.raises(ParamsError, match="a tower with a connector cannot be exported"):
        export(Subject(), None, "onnx", tmp_path / "out")  # type: ignore[arg-type]
