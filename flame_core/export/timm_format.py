"""The `timm` format: the backbone as a timm model, in the layout of `local-dir:` and `hf-hub:`, and the projector.

timm has one linear layer behind a backbone, and none for each patch. The projectors of this project are two layers with
a GELU between them, so no timm model is the whole tower: the projector lies beside it, and a few lines apply it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flame_core.digest import write_json
from flame_core.export import class_files
from flame_core.export.preprocessing import timm_config
from flame_core.export.projector_program import patch_tokens, projected, projector_layers
from flame_core.export.resize_program import resize_program
from flame_core.export.subject import Subject
from flame_core.export.usage import Usage
from flame_core.files.weights import save_weights

PROJECTOR = "projector.safetensors"


def write(subject: Subject, folder: Path) -> Usage:
    """Write the files of this format."""
    tower, head = subject.tower, subject.zero_shot
    save_weights(tower.backbone, folder / "model.safetensors")
    save_weights(tower.projector.layers, folder / PROJECTOR)
    write_json(folder / "config.json", _config(subject))
    files = {
        "model.safetensors": "the backbone, as timm reads it",
        "config.json": "its architecture, arguments and preprocessing",
        PROJECTOR: f"the projector, {subject.width} to {subject.dim} dimensions",
    }
    programs = {"Vectors": _program(subject)}
    if head is not None:
        class_files.write_classes(head, folder)
        files |= class_files.FILES
        programs["Vectors"] = "import json\n\n" + programs["Vectors"] + class_files.PROGRAM
    notes = [
        "`local-dir:.` needs timm 1.0.29 or newer: older ones do not read a folder with two files of weights.",
        "On a hub, write `hf-hub:<owner>/<name>` for `local-dir:.`.",
        "timm's transform resizes the short side before it crops. The program crops the square first, as "
        "the training's evaluation does; without that, vectors of pictures that are not square differ.",
    ]
    lacks = [
        "A timm model has one linear layer behind its backbone, so `backbone(pictures)` gives features [N, C], not "
        f"vectors: the projector lies in `{PROJECTOR}`, and the program of the README applies it."
    ]
    if subject.sizes:
        lacks.append(
            "The tower was pruned, and timm's arguments cannot say the sizes of its blocks (`sizes` in `config.json`): "
            "`local-dir:.` does not load it, but the program of the README does."
        )
    if subject.facets:
        lacks.append(
            f"The {subject.facets} facet tokens are not in this format, since timm's models have none. The vector of "
            "the whole picture does not depend on them."
        )
    return Usage("timm", programs, files, notes, lacks)


def _config(subject: Subject) -> dict[str, Any]:
    return {
        "architecture": subject.architecture,
        "num_classes": 0,
        "num_features": subject.width,
        "global_pool": "avg",
        "model_args": subject.model_args,
        **subject.sizes,
        "pretrained_cfg": timm_config(subject),
    }


def _program(subject: Subject) -> str:
    return f"""\
{"import json" + chr(10) * 2 if subject.sizes else ""}\
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms.functional import center_crop

{resize_program(subject)}\
{_backbone(subject)}
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone))
projector = {projector_layers(subject)}
projector.load_state_dict(load_file("{PROJECTOR}"))

picture = Image.open("bird.jpg").convert("RGB")
pictures = transform(center_crop(picture, min(picture.size)))[None]
with torch.inference_mode():
    patches = {patch_tokens(subject)}
    vectors = nn.functional.normalize({projected(subject, "projector")}, dim=-1)  # [1, {subject.dim}]
"""


def _backbone(subject: Subject) -> str:
    if not subject.sizes:
        return 'backbone = timm.create_model("local-dir:.", pretrained=True).eval()'
    return """\
config = json.load(open("config.json"))
backbone = timm.create_model(config["architecture"], **config["model_args"]).eval()
resize(backbone, config["sizes"])
backbone.load_state_dict(load_file("model.safetensors"))
backbone.pretrained_cfg = backbone.default_cfg = config["pretrained_cfg"]"""
