"""Layers behind the frozen LLM: their formula, and texts that pass through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.model_files import TEXT_WEIGHTS
from flame_core.params import TextProjectionParams
from flame_core.text.frozen_texts import FacetTexts
from flame_core.text.projection import ProjectedTexts, TextProjection
from flame_core.text.store import Centring

MLP = TextProjectionParams(layers=2, hidden=5, dim=3)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_an_mlp_is_linear_maps_with_norms_and_relu_between():
    torch.manual_seed(0)
    layers = TextProjection(MLP, 4).double()
    weights = {name: value.numpy() for name, value in layers.state_dict().items()}
    t = np.random.default_rng(0).normal(size=(6, 4))
    h = t @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
    expected = unit(np.maximum(h, 0) @ weights["layers.3.weight"].T + weights["layers.3.bias"])
    np.testing.assert_allclose(layers(torch.from_numpy(t)).detach(), expected, atol=1e-6)


def test_a_gated_layer_is_sails():
    torch.manual_seed(0)
    layers = TextProjection(TextProjectionParams(kind="gated", hidden=5), 4).double()
    w = {name.removeprefix("layers."): value.numpy() for name, value in layers.state_dict().items()}
    t = 9 * np.random.default_rng(0).normal(size=(6, 4))
    gate, value = (t @ w[f"{name}.weight"].T + w[f"{name}.bias"] for name in ("gate", "value"))
    expected = unit((np.clip(gate, 0, 6) * value) @ w["out.weight"].T + w["out.bias"])
    assert (gate > 6).any()
    np.testing.assert_allclose(layers(torch.from_numpy(t)).detach(), expected, atol=1e-6)


class Reader:
    """An LLM that gives each text the same vectors of facets."""

    def encode(self, kind: str, texts: list[str]) -> np.ndarray:
        drawn = np.random.default_rng(len(kind)).normal(size=(len(texts), 2, 4))
        return unit(drawn).astype(np.float32)


def test_texts_of_a_served_model_pass_through_its_layers(tmp_path):
    torch.manual_seed(0)
    layers = TextProjection(MLP, 4).eval()
    save_file(layers.state_dict(), tmp_path / TEXT_WEIGHTS)
    config = {"hidden": 4, "dim": 3, "recipe": {"text_projection": MLP.model_dump()}}
    write_json(tmp_path / "config.json", config)
    values = {"text": {"center": "none"}, "text_facets": ["raw/1", "raw/2"], "facets": ["raw/1"]}
    side = ProjectedTexts.of_package(tmp_path, values, Reader)
    found = side.encode("raw", ["a", "b", "c"])
    own = FacetTexts(["raw/1", "raw/2"], 4, Centring.of_file(["raw/1"], tmp_path / "none"), Reader)
    t = own.encode("raw", ["a", "b", "c"])
    expected = layers(torch.from_numpy(t).flatten(0, 1)).unflatten(0, (3, 2)).detach()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert side.dim == 3 and side.count("raw") == 2 and not side.in_words
    assert side.encode("raw", []).shape == (0, 2, 3)
    packed = side.save()
    assert packed.files == {TEXT_WEIGHTS: tmp_path / TEXT_WEIGHTS}
    assert packed.values["text_facets"] == ["raw/1", "raw/2"]
    (tmp_path / TEXT_WEIGHTS).unlink()
    with pytest.raises(InputError, match="is not a usable model"):
        ProjectedTexts.of_package(tmp_path, values, Reader)
