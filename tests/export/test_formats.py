"""Every kind of tower in every format, loaded by the other library in a process that cannot import this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.export.about import About
from flame_core.export.formats import FORMATS, Format, export
from flame_core.text.transformer import TrainedTexts
from flame_core.vision.image_encoder import load_encoder
from tests.data.drawings import drawing, encoded
from tests.export import subjects

ABOUT = About("A tower.", "## Limits\n\nNone were measured.")
CLOSE = 1e-4
TRACED = ("plain", "lift", "facets", "facets-all", "pruned", "class-token", "attention", "feature-map")
RESAMPLED = 5e-3  # a processor of another library may round a pixel to another byte
ALONE = """\
import json, os, sys, warnings
sys.modules["flame_core"] = None  # importing it is an error now
warnings.simplefilter("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = os.getcwd()  # transformers copies custom code there
import numpy as np, torch
pictures, out, folders = np.load(sys.argv[1]), sys.argv[2], sys.argv[3:]
torch.set_num_threads(1)
torch.set_grad_enabled(False)
found = {}
"""
LOADERS: dict[Format, str] = {
    "timm": """
import timm
from safetensors.torch import load_file
from torch import nn
for folder in folders:
    if folder.endswith("pruned"):
        continue  # which timm cannot load by itself
    backbone = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    weights = load_file(f"{folder}/projector.safetensors")
    hidden, width = weights["0.weight"].shape
    layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)]
    pooled = "3.weight" not in weights
    projector = nn.Sequential(*layers, *([] if pooled else [nn.LayerNorm(hidden)]))
    projector.load_state_dict(weights)
    tokens = backbone.forward_features(torch.from_numpy(pictures))
    tokens = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens[:, backbone.num_prefix_tokens:]
    np.testing.assert_allclose(backbone(torch.from_numpy(pictures)), tokens.mean(1), atol=1e-5)
    z = projector(tokens.mean(1)) if pooled else projector(tokens).mean(1)
    found[f"{folder}/vectors"] = nn.functional.normalize(z, dim=-1).numpy()
    classes = load_file(f"{folder}/classes.safetensors")["classes"].numpy()
    found[f"{folder}/logits"] = found[f"{folder}/vectors"] @ classes.T
""",
    "transformers": """
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification
for folder in folders:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    outputs = model(torch.from_numpy(pictures))
    found[f"{folder}/vectors"] = outputs.image_embeds.numpy()
    if outputs.facet_embeds is not None:
        found[f"{folder}/facets"] = outputs.facet_embeds.numpy()
    classifier = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
    assert classifier.config.id2label == {0: "birds", 1: "boats & ships", 2: "Häuser"}, classifier.config
    found[f"{folder}/logits"] = classifier(pixel_values=torch.from_numpy(pictures)).logits.numpy()
    assert AutoImageProcessor.from_pretrained(folder).crop_size["height"] == pictures.shape[-1]
""",
    "onnx": """
import onnxruntime
for folder in folders:
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
    names = [output.name for output in session.get_outputs()]
    for name, value in zip(names, session.run(names, {"pixel_values": pictures}), strict=True):
        found[f"{folder}/{name}"] = value
    one = session.run(["vectors"], {"pixel_values": pictures[:1]})[0]
    np.testing.assert_allclose(one, found[f"{folder}/vectors"][:1], atol=1e-5)
""",
    "safetensors": """
import re
for folder in folders:
    os.chdir(folder)
    blocks = re.findall(r"^```python\\n(.*?)^```", open("README.md").read(), re.M | re.S)
    program = blocks[0].replace('torch.from_numpy(pixels("bird.jpg"))', "torch.from_numpy(given)")
    space = {"given": pictures}
    exec(program, space)
    for name in ("vectors", "facets", "logits"):
        if name in space:
            found[f"{folder}/{name}"] = space[name].numpy()
""",
}
PROGRAMS = """
import re
for folder in folders:
    os.chdir(folder)
    for block in re.findall(r"^```python\\n(.*?)^```", open("README.md").read(), re.M | re.S):
        space = {}
        exec(block, space)
        for name in ("vectors", "texts", "logits"):
            if name in space:
                found[f"{folder}/{name}"] = np.asarray(space[name])
"""
SAVE = "\nassert not any(name.startswith('flame_core.') for name in sys.modules)\nnp.savez(out, **found)\n"


def alone(program: str, folders: list[Path], scratch: Path) -> dict[str, np.ndarray]:
    """What a program finds in folders, in a process of its own: {`<folder>/<name>`: values}."""
    np.save(scratch / "pictures.npy", subjects.pictures())
    code = ALONE + program + SAVE
    arguments = [str(scratch / "pictures.npy"), str(scratch / "found.npz"), *map(str, folders)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=scratch, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(scratch / "found.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: subjects.trained(root, name, byte_tokenizer) for name in subjects.RECIPES}


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Format, dict[str, Path]]:
    """All of them in one format, with classes; `bird.jpg` lies in every folder."""
    form: Format = request.param
    root = tmp_path_factory.mktemp(form)
    folders = {}
    for name, model in models.items():
        if (form == "onnx" and name not in TRACED) or (form != "onnx" and name in ("class-token", "attention")):
            continue
        folders[name] = root / name
        lacks = " ".join(export(subjects.subject(model, subjects.head()), ABOUT, form, folders[name]))
        assert ("facet tokens are not" in lacks) == (form == "timm" and name.startswith("facets")), lacks
        assert ("The tower was pruned" in lacks) == (form == "timm" and name == "pruned"), lacks
        assert ("text tower is not" in lacks) == (form != "safetensors" and name == "clip"), lacks
        (folders[name] / "bird.jpg").write_bytes(encoded(drawing(3, (56, 40)), "JPEG"))
    return form, folders


@torch.inference_mode()
def views(model: Path) -> np.ndarray:
    """[5, 1 + F, D] of `subjects.pictures`, normalised as the backbone expects it, by this project."""
    tower = subjects.subject(model).tower
    tower.own_pixels = False
    return tower.z(torch.from_numpy(subjects.pictures())).numpy()


def test_the_other_library_gives_the_same_vectors(
    exported: tuple[Format, dict[str, Path]], models: dict[str, Path], tmp_path: Path
):
    form, folders = exported
    found = alone(LOADERS[form], list(folders.values()), tmp_path)
    for name, folder in folders.items():
        if form == "timm" and name == "pruned":
            continue
        z = views(models[name])
        np.testing.assert_allclose(found.pop(f"{folder}/vectors"), z[:, 0], atol=CLOSE, err_msg=name)
        logits = found.pop(f"{folder}/logits")
        np.testing.assert_allclose(logits, z[:, 0] @ subjects.head().vectors.T, atol=CLOSE, err_msg=name)
        if z.shape[1] > 1 and form != "timm":
            np.testing.assert_allclose(found.pop(f"{folder}/facets"), z[:, 1:], atol=CLOSE, err_msg=name)
    assert not found


def test_the_programs_of_the_card_run(
    exported: tuple[Format, dict[str, Path]], models: dict[str, Path], tmp_path: Path
):
    """And give this project's vector of a picture that is not square."""
    form, folders = exported
    exact = form in ("onnx", "safetensors")
    found = alone(PROGRAMS, list(folders.values()), tmp_path)
    for name, folder in folders.items():
        z = load_encoder(models[name], "cpu").encode([(folder / "bird.jpg").read_bytes()])
        np.testing.assert_allclose(found[f"{folder}/vectors"], z, atol=CLOSE if exact else RESAMPLED, err_msg=name)
        assert found[f"{folder}/logits"].shape == (1, 3)
    if form == "safetensors":
        texts = TrainedTexts(models["clip"], "cpu").encode("raw", ["a small bird", "ein Boot"])[:, 0]
        np.testing.assert_allclose(found[f"{folders['clip']}/texts"], texts, atol=CLOSE)
    assert any(key.endswith("/texts") for key in found) == (form == "safetensors")


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "onnx"])
def test_a_head_that_a_format_cannot_say_is_refused(models: dict[str, Path], tmp_path: Path, form: Format):
    with pytest.raises(ParamsError, match="a head cls is written with --format onnx only"):
        export(subjects.subject(models["class-token"]), ABOUT, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()
