"""Where an LLM's folder holds its output matrix and its final norm, found by the names of the tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flame_core.errors import InputError

# A tied model has no `lm_head`: its input embeddings are the same matrix.
_MATRIX = ("lm_head.weight", "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_NORM = ("model.norm.weight", "norm.weight", "final_layernorm.weight", "final_layer_norm.weight", "ln_f.weight")


def output_matrix(folder: Path) -> tuple[Path, str]:
    """(file, tensor) of the output matrix.

    Raises:
        InputError: no file has such a tensor.
    """
    return _find(folder, _MATRIX, "output matrix")


def norm_length(folder: Path) -> float:
    """The length that the final norm gives to a vector whose values are all of one size.

    It is the length of the norm's weights; Gemma's norms multiply by 1 + weight.

    Raises:
        InputError: no file has such a tensor.
    """
    from safetensors import safe_open

    file, name = _find(folder, _NORM, "final norm")
    with safe_open(file, "pt") as opened:
        weight = opened.get_tensor(name).double()
    model_type = json.loads((folder / "config.json").read_text("utf-8")).get("model_type", "")
    return float((weight + 1 if model_type.startswith("gemma") else weight).square().sum().sqrt())


def _find(folder: Path, names: Sequence[str], what: str) -> tuple[Path, str]:
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        weights: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        places |= {name: folder / file for name, file in weights.items()}
    if not places:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                places |= dict.fromkeys(file.keys(), path)
    for wanted in names:
        for name, path in sorted(places.items()):
            if name == wanted or name.endswith(f".{wanted}"):
                return path, name
    raise InputError(f"{folder}: no {what} (none of {', '.join(names)}) in its safetensors files")
