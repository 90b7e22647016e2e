"""The `onnx` format: one graph from normalised pictures to vectors, with a free batch size.

PyTorch's exporter writes it (`dynamo=True`, which needs onnxscript). What it notes about the machine, such as the lines
of source that made a node, is removed: the file holds the graph, and equal models are equal bytes.
"""

from __future__ import annotations

import json
import math
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flame_core.digest import write_json
from flame_core.errors import ResourceError
from flame_core.export import class_files
from flame_core.export.preprocessing import processor_config, program
from flame_core.export.subject import Subject
from flame_core.export.usage import Usage

OPSET = 18
FILE, DATA = "model.onnx", "model.onnx.data"
INPUT = "pixel_values"
HEAD_NAMES = "head_classes.json"
_IMPORTS = "import numpy as np\nimport onnxruntime\nfrom PIL import Image\n\n"
LARGEST = 1_800_000_000  # bytes of weights in one file; protobuf reads 2 GiB


class _Graph(nn.Module):
    """Pictures [N, 3, H, W] to vectors [N, D], facets [N, F, D], logits [N, C], and probabilities of the tuned head.

    What the subject does not have is left out.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.tower, self.facets = copy(subject.tower), subject.facets
        self.tower.own_pixels = False  # the preprocessing normalises them
        head = subject.zero_shot
        self.classes = None if head is None else nn.Parameter(torch.from_numpy(head.vectors.T.copy()))
        tuned = subject.tuned
        self.tuned, self.on_z = (None, False) if tuned is None else (tuned.head, tuned.config["features"] == "z")
        self.names = [
            "vectors",
            *(["facets"] if self.facets else []),
            *(["logits"] if head else []),
            *(["probabilities"] if tuned else []),
        ]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        if self.tuned is None or self.on_z:
            z = f = self.tower.z(pixel_values)
            f = f[:, 0]
        else:
            features = self.tower(pixel_values, ("z", "pooled"))
            z, f = features["z"], features["pooled"]
        found = [z[:, 0], *([z[:, 1:]] if self.facets else [])]
        if self.classes is not None:
            found.append(z[:, 0] @ self.classes)
        if self.tuned is not None:
            scaled = F.normalize(f, dim=1) * math.sqrt(f.shape[1])  # as `tuning.head.scaled`
            found.append(self.tuned(scaled)[1].softmax(dim=1))
        return tuple(found)


def write(subject: Subject, folder: Path) -> Usage:
    """Write the files of this format.

    Raises:
        ResourceError: onnx or onnxscript is not installed.
    """
    graph = _Graph(subject).eval()
    _save(_exported(graph, subject.params.image_size), folder)
    write_json(folder / "preprocessor_config.json", processor_config(subject))
    outputs = {"vectors": f"[N, {subject.dim}]", "facets": f"[N, {subject.facets}, {subject.dim}]"}
    head = subject.zero_shot
    if head is not None:
        outputs["logits"] = f"[N, {len(head.names)}], cosines with the classes"
        class_files.write_names(head, folder)
    tuned = subject.tuned
    if tuned is not None:
        outputs["probabilities"] = f"[N, {len(tuned.classes)}], of the tuned head's classes"
        write_json(folder / HEAD_NAMES, tuned.classes)
    listed = ", ".join(f"`{name}` {outputs[name]}" for name in graph.names)
    size = subject.params.image_size
    files = {
        FILE: f"opset {OPSET}; input `{INPUT}` [N, 3, {size}, {size}]; outputs {listed}",
        "preprocessor_config.json": "the preprocessing, in the words of transformers",
    }
    if (folder / DATA).exists():
        files[DATA] = "the weights of the graph, since they are too large for one file"
    if head is not None:
        files[class_files.NAMES] = class_files.FILES[class_files.NAMES]
    if tuned is not None:
        files[HEAD_NAMES] = "the names of the tuned head's classes"
    return Usage("onnx", {"Vectors": _program(subject, graph.names)}, files)


def _exported(graph: _Graph, size: int) -> Any:
    """The graph as a protobuf of ONNX."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"--format onnx needs the Python package {error.name!r}: pip install 'flame-mlops[onnx]'"
        ) from None

    pictures = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim.DYNAMIC
    with torch.inference_mode(False), torch.no_grad():
        made = torch.onnx.export(
            graph,
            (pictures,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=graph.names,
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    _forget(model)
    return model


def _forget(model: Any) -> None:
    """Remove what the exporter notes about the code and the machine."""
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        del graph.metadata_props[:]
        graph.ClearField("doc_string")
        for node in graph.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for value in [*graph.value_info, *getattr(graph, "input", []), *getattr(graph, "output", [])]:
            if not isinstance(value, str):  # inputs of a function are names
                del value.metadata_props[:]
        for weight in getattr(graph, "initializer", []):
            del weight.metadata_props[:]
    del model.metadata_props[:]


def _save(model: Any, folder: Path) -> None:
    import onnx

    if sum(len(weight.raw_data) for weight in model.graph.initializer) > LARGEST:
        onnx.save(model, folder / FILE, save_as_external_data=True, location=DATA)
        (folder / DATA).chmod(0o644)  # onnx makes it private
    else:
        (folder / FILE).write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(folder / FILE)


def _program(subject: Subject, names: list[str]) -> str:
    asked = json.dumps(names)
    left = f"{', '.join(names)}," if len(names) == 1 else ", ".join(names)
    printed = {}
    if subject.zero_shot is not None:
        printed["logits"] = class_files.NAMES
    if subject.tuned is not None:
        printed["probabilities"] = HEAD_NAMES
    imports = f"import json\n\n{_IMPORTS}" if printed else _IMPORTS
    lines = [
        f'session = onnxruntime.InferenceSession("{FILE}")',
        f'{left} = session.run({asked}, {{"{INPUT}": pixels("bird.jpg")}})',
    ]
    for output, file in printed.items():
        lines += [
            f'names = json.load(open("{file}", encoding="utf-8"))',
            f"print(names[int({output}[0].argmax())])",
        ]
    return imports + program(subject) + "\n\n" + "\n".join(lines) + "\n"
