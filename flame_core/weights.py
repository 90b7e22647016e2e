"""Trained weights as a safetensors file: names sorted, no metadata, so equal weights are equal bytes."""

from __future__ import annotations

from pathlib import Path

from torch.nn import Module


def save_weights(module: Module, path: Path) -> None:
    """Write the parameters and buffers of a module."""
    from safetensors.torch import save

    weights = {name: w.detach().cpu().contiguous() for name, w in sorted(module.state_dict().items())}
    path.write_bytes(save(weights))  # `save_file` reports a full disk with its own kind of error
