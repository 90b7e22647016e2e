"""The digest of a model's weights in memory, by which its embeddings are kept, wherever it was fetched from."""

from __future__ import annotations

import hashlib

from torch import nn


def weights_sha256(model: nn.Module) -> str:
    """sha256 of all parameters and buffers by name, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
