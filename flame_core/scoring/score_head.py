"""The head of a scorer: linear layers over a picture's vector that end in one number.

A file of LAION's linear predictor holds `weight` [1, 768] and `bias` [1]; one of its MLP `layers.0.weight`,
`layers.0.bias`, `layers.2.weight` and so on. Layers are applied by the numbers in their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from flame_core.digest import file_sha256
from flame_core.errors import InputError

_TENSOR = re.compile(r"(?:(?P<layer>.+)\.)?(?P<part>weight|bias)")
_ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class ScoreHead:
    """Layers (weight [out, in], bias [out]) in float64, the activation between them, and the sha256 of their file."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    activation: str
    sha256: str

    @property
    def width(self) -> int:
        """Dimensions of the vectors that it reads."""
        return self.layers[0][0].shape[1]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Vectors [n, width] to scores [n] in float64."""
        x = vectors.double()
        for number, (weight, bias) in enumerate(self.layers):
            x = F.linear(_ACTIVATIONS[self.activation](x) if number else x, weight, bias)
        return x[:, 0]


def read_head(path: Path, activation: str = "none") -> ScoreHead:
    """The head in a safetensors file.

    Raises:
        InputError: it is missing, no safetensors file, or holds something else than linear layers that fit each other
            and end in one number; names the tensor.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing, the head of a scorer: correct `file`")
    try:
        tensors = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _TENSOR.fullmatch(name)
        if found is None or tensor.ndim != {"weight": 2, "bias": 1}[found["part"]]:
            raise InputError(
                f"{path}: {name} {list(tensor.shape)} is no part of a linear layer; a head holds <layer>.weight "
                "[out, in] and <layer>.bias [out], no norms or convolutions"
            )
        parts.setdefault(found["layer"] or "", {})[found["part"]] = tensor.double()
    names = sorted(parts, key=_in_order)
    if not names:
        raise InputError(f"{path} holds no tensor")
    for name in names:
        if "weight" not in parts[name]:
            raise InputError(f"{path}: the layer {name!r} has a bias and no weight")
        bias = parts[name].setdefault("bias", torch.zeros(len(parts[name]["weight"]), dtype=torch.float64))
        if len(bias) != len(parts[name]["weight"]):
            raise InputError(
                f"{path}: the bias of the layer {name!r} has {len(bias)} numbers, and its weight "
                f"{len(parts[name]['weight'])} rows"
            )
    layers = tuple((parts[name]["weight"], parts[name]["bias"]) for name in names)
    for (before, (weight, _)), (after, (following, _)) in pairwise(zip(names, layers, strict=True)):
        if following.shape[1] != len(weight):
            raise InputError(
                f"{path}: the layer {before!r} gives {len(weight)} numbers, and {after!r} reads {following.shape[1]}"
            )
    if len(layers[-1][0]) != 1:
        raise InputError(f"{path}: the last layer gives {len(layers[-1][0])} numbers, and a score is one")
    return ScoreHead(layers, activation, file_sha256(path))


def _in_order(name: str) -> list[tuple[int, str]]:
    """layers.2 before layers.10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
