"""The `transformers` format: custom code (`modeling_flame`) that the Auto classes load, and a native image processor.

No class of `transformers` has a projector on every patch, or facet tokens: `TimmWrapperModel` gives the features of the
backbone only. So the model is custom code of one file, and everything around it is the library's own.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from flame_core.digest import write_json
from flame_core.export.preprocessing import processor_config
from flame_core.export.subject import Subject
from flame_core.export.usage import Usage

_MODULE = "modeling_flame"
_LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"


def write(subject: Subject, folder: Path) -> Usage:
    """Write the files of this format."""
    from safetensors.torch import save

    head = subject.zero_shot
    weights = {name: w.detach().contiguous() for name, w in sorted(subject.tower.state_dict().items())}
    if head is not None:
        weights["classifier.weight"] = torch.from_numpy(head.vectors)
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
    (folder / f"{_MODULE}.py").write_text(_model_code(), "utf-8")
    write_json(folder / "config.json", _config(subject))
    write_json(folder / "preprocessor_config.json", processor_config(subject))
    programs = {"Vectors": _program(subject)}
    if head is not None:
        programs["Classes"] = _CLASSES
    return Usage(
        "transformers",
        programs,
        {
            "model.safetensors": "backbone, projector"
            + (", facet tokens" if subject.facets else "")
            + _class_weights(head),
            "config.json": "architecture" + (", names of the classes" if head else ""),
            f"{_MODULE}.py": "the model, which `trust_remote_code=True` lets run: read it first, it needs timm",
            "preprocessor_config.json": "the preprocessing, which is that of Perceiver: crop first, then resize",
        },
        ["On a hub, write `<owner>/<name>` for the dot."],
    )


def _model_code() -> str:
    return _LICENCE + (files("flame_core.export") / f"{_MODULE}.py").read_text("utf-8")


def _class_weights(head: object) -> str:
    return "" if head is None else ", class texts (`classifier.weight`)"


def _config(subject: Subject) -> dict[str, Any]:
    classes = "FlameForImageClassification"
    auto = {"AutoConfig": f"{_MODULE}.FlameVisionConfig", "AutoModel": f"{_MODULE}.FlameVisionModel"}
    content = {
        "model_type": "flame_vision",
        "dtype": "float32",
        "architectures": ["FlameVisionModel" if subject.zero_shot is None else classes],
        **subject.tower_config(),
    }
    if subject.zero_shot is not None:
        names = subject.zero_shot.names
        auto["AutoModelForImageClassification"] = f"{_MODULE}.{classes}"
        content["id2label"] = {str(number): name for number, name in enumerate(names)}
        content["label2id"] = {name: number for number, name in enumerate(names)}
    return content | {"auto_map": auto}


def _program(subject: Subject) -> str:
    shape = f"[1, {subject.facets}, {subject.dim}]"
    facets = f"\n    facets = outputs.facet_embeds  # {shape}" if subject.facets else ""
    return f"""\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained(".", trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(".")
pictures = processor(Image.open("bird.jpg"), return_tensors="pt")
with torch.inference_mode():
    outputs = model(**pictures)
    vectors = outputs.image_embeds  # [1, {subject.dim}]{facets}
"""


_CLASSES = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained(".", trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(".")
with torch.inference_mode():
    logits = model(**processor(Image.open("bird.jpg"), return_tensors="pt")).logits  # cosines
print(model.config.id2label[int(logits[0].argmax())])
"""
