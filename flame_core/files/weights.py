"""Trained weights as a safetensors file: names sorted, no metadata, so equal weights are equal bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module


def save_weights(module: Module, path: Path) -> None:
    """Write the parameters and buffers of a module."""
    save_tensors(module.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name."""
    from safetensors.torch import save

    weights = {name: w.detach().cpu().contiguous() for name, w in sorted(tensors.items())}
    path.write_bytes(save(weights))  # `save_file` reports a full disk with its own kind of error


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that hold a NaN or an infinity.

    Raises:
        ValueError: names the first one.
    """
    if wrong := next((name for name, w in sorted(tensors.items()) if not w.isfinite().all()), None):
        raise ValueError(f"the weight {wrong} is not finite")


def own_weights_sha256(module: Module) -> str:
    """The digest of all weights but those of adapters, to see whether a training changed any.

    It covers no names, because adapters change them, but not their order.
    """
    total = hashlib.sha256()
    for name, weight in module.state_dict().items():
        if ".lora_" not in name:
            total.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
