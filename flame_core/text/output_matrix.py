"""Where an LLM's folder holds its output matrix and its final norm, found by the names of the tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.text.llm import FINAL_NORMS, quiet_transformers

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

    It is the length of the norm's weights; some norms, such as those of Gemma 1 to 3, multiply by 1 + weight.

    Raises:
        InputError: no file has such a tensor.
    """
    from safetensors import safe_open

    file, name = _find(folder, _NORM, "final norm")
    with safe_open(file, "pt") as opened:
        weight = opened.get_tensor(name).double()
    return float((weight + _added_to_weights(folder)).square().sum().sqrt())


def _added_to_weights(folder: Path) -> int:
    """What an LLM's final norm adds to its weights before it multiplies by them, as its class does with weights of 0.

    Of an architecture that transformers does not have, nothing.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"), quiet_transformers():  # without any weights
            model: Any = AutoModel.from_config(config.get_text_config(decoder=True))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError):
        return 0
    norm = next((getattr(model, name) for name in FINAL_NORMS if hasattr(model, name)), None)
    if norm is None:
        return 0
    norm = norm.to_empty(device="cpu").float()
    with torch.no_grad():
        for weight in norm.parameters():
            weight.zero_()
        x = torch.ones(norm.weight.numel())
        x[1::2] = -1  # of mean 0 and variance 1, so no norm changes it
        return round(float((norm(x) / x).mean()))


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
