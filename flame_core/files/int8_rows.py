"""Vectors in int8: the difference from the mean of a file and column, with one float32 scale per vector.

Beside the codes `<name>` [rows, ..., D], a file holds `<name>.scale` [rows, ...] and `<name>.offset` [..., D]. Without
the mean, the few huge components that all vectors share would use up the 127 steps. The store of texts
(`text/tensor_file.py`) and sidecars (`data/sidecars.py`) use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

SCALE, OFFSET = ".scale", ".offset"  # added to an int8 tensor's name: its scales, its means


def coded(name: str, vectors: Tensor) -> dict[str, Tensor]:
    """The three tensors of finite float32 vectors [rows, ..., D], by name."""
    import torch

    offset = vectors.double().sum(dim=0).div(max(1, len(vectors))).float()
    own = vectors - offset
    scale = own.abs().amax(dim=-1) / 127  # so a vector's largest component uses all 7 bits
    codes = (own / scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).round()
    return {name: codes.to(torch.int8), name + SCALE: scale, name + OFFSET: offset}


def decoded(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The vectors of a file's tensors, in float32 if they are in int8, else as they are."""
    values = tensors[name]
    if values.dtype != np.int8:
        return values
    return values * tensors[name + SCALE][..., None] + tensors[name + OFFSET]
