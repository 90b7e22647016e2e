"""A head of `flame tune` in the graph of ONNX: the probabilities of `flame classify`, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

import flame_core
from flame_core.digest import file_sha256, write_json
from flame_core.errors import InputError, ParamsError
from flame_core.export import onnx_format
from flame_core.export.about import About
from flame_core.export.formats import export
from flame_core.export.subject import subject_of
from flame_core.model.loaded import Model, Parts
from flame_core.params import IngestParams
from flame_core.tuning.head import LinearProbe, NMTuneHead
from tests.export import subjects

WIDTH = subjects.SMALL["embed_dim"]


def opened(folder: Path) -> Model:
    """The model without what it needs for texts."""
    config = json.loads((folder / "config.json").read_text("utf-8"))

    def no_parts() -> Parts:
        raise AssertionError("the head is exported without running the tower on pictures")

    return Model(folder.name, folder, IngestParams(), {}, config, no_parts)


def head_of(root: Path, model: Path, preset: str = "paper", features: str = "pooled") -> Path:
    """A stored head with random weights, on the tower of a model folder."""
    dims = WIDTH if features == "pooled" else subjects.DIM
    torch.manual_seed(1)
    head = LinearProbe(dims, 3) if preset == "lp" else NMTuneHead(dims, 3, 2)
    if isinstance(head, NMTuneHead):
        for _ in range(3):  # running means that are not the first ones
            head(torch.randn(8, dims) + 1)
    folder = root / f"head-{preset}-{features}"
    folder.mkdir()
    save_file(head.state_dict(), folder / "head.safetensors")
    identity = {"weights": file_sha256(model / "model.safetensors"), "config": file_sha256(model / "config.json")}
    config = {"identity": identity, "features": features, "classes": subjects.CLASSES, "dims": dims, "ratio": 2}
    write_json(folder / "config.json", {**config, "preset": preset, "model": model.name})
    return folder


@pytest.mark.parametrize(
    ("name", "preset", "features"), [("facets", "paper", "pooled"), ("plain", "lp", "pooled"), ("plain", "code", "z")]
)
def test_the_graph_gives_the_probabilities_of_the_head(tmp_path, byte_tokenizer, name, preset, features):
    folder = subjects.trained(tmp_path, name, byte_tokenizer)
    model = opened(folder)
    head = flame_core.load_head(head_of(tmp_path, folder, preset, features), model)
    (tmp_path / "out").mkdir()
    usage = onnx_format.write(subject_of(model, None, head), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "head_classes.json").read_text()) == subjects.CLASSES
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(usage.files)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    outputs = [each.name for each in session.get_outputs()]
    pictures = subjects.pictures()
    found = dict(zip(outputs, session.run(outputs, {"pixel_values": pictures}), strict=True))
    assert outputs == ["vectors", *(["facets"] if name == "facets" else []), "probabilities"]
    with torch.inference_mode():
        tower = subject_of(model, None).tower
        z = tower.z(torch.from_numpy(pictures))
        f = z[:, 0] if features == "z" else tower.patches(torch.from_numpy(pictures)).mean(dim=1)
        scaled = f / f.norm(dim=1, keepdim=True) * f.shape[1] ** 0.5
        wanted = head.head(scaled)[1].softmax(dim=1).numpy()
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-4)
    np.testing.assert_allclose(found["vectors"], z[:, 0].numpy(), atol=1e-4)
    assert wanted.std(axis=1).min() > 1e-3


def test_other_formats_and_other_towers_are_refused(tmp_path, byte_tokenizer):
    plain, other = (subjects.trained(tmp_path, name, byte_tokenizer) for name in ("plain", "registers"))
    model = opened(plain)
    head = flame_core.load_head(head_of(tmp_path, plain), model)
    for form in ("timm", "transformers", "safetensors"):
        with pytest.raises(ParamsError, match="a tuned head is part of the graph of --format onnx"):
            export(subject_of(model, None, head), About("A tower.", ""), form, tmp_path / form)
        assert not (tmp_path / form).exists()
    with pytest.raises(InputError, match="another tower than"):
        flame_core.load_head(tmp_path / "head-paper-pooled", opened(other))
