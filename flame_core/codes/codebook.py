"""A codebook of patch tokens: the map from a tower's tokens to its space, and the codes as directions there.

A token x becomes n(((x / |x|) - mean) basis), where n divides by the length. Its code is the most similar direction.
The arrays are whole numbers (`clustering/spherical.py`), so equal tokens have equal codes on every processor.

`codebook.safetensors`:

    codes  [K, E]  int16, directions times `UNIT`
    mean   [D]     int32, times `GRID`
    basis  [D, E]  int32, times `GRID`; without one the space is that of the tokens

`codebook.json` says which tower it is for, of how many patches per picture, and how well it fitted its tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.clustering.sources import GRID, lengths
from flame_core.clustering.spherical import UNIT, nearest, on_sphere
from flame_core.digest import bytes_sha256, json_bytes
from flame_core.errors import InputError

CODEBOOK, ABOUT = "codebook.safetensors", "codebook.json"
_ROWS = 2**22  # numbers of tokens that are mapped at once: 32 MB in float64


@dataclass(frozen=True)
class Codebook:
    """The arrays of `codebook.safetensors`, and the content of `codebook.json`."""

    codes: np.ndarray
    mean: np.ndarray
    basis: np.ndarray | None
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def words(self) -> list[str]:
        """The word of each code, if they are the LLM's words; else none."""
        return self.about.get("words", [])

    def reduced(self, tokens: np.ndarray) -> np.ndarray:
        """Directions [n, E] in int16, times `UNIT`, of tokens [n, D]."""
        parts = []
        size = max(1, _ROWS // tokens.shape[1])
        mean, basis = self.mean.astype(np.float64), None if self.basis is None else self.basis.astype(np.float64)
        for start in range(0, len(tokens), size):
            x = on_grid(tokens[start : start + size]) - mean
            parts.append(on_sphere(x if basis is None else x @ basis).astype(np.int16))
        return np.concatenate(parts) if parts else np.zeros((0, self.codes.shape[1]), np.int16)

    def assign(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes [n] in uint16 of tokens [n, D], and their cosines [n] with them, in float64."""
        labels, best = nearest(self.reduced(tokens), self.codes)
        return labels.astype(np.uint16), best / float(UNIT**2)

    def assign_pictures(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [n, L] in uint16, and mean cosines [n], of pictures with tokens [n, L, D]."""
        codes, cosine = self.assign(tokens.reshape(-1, tokens.shape[2]))
        return codes.reshape(tokens.shape[:2]), cosine.reshape(tokens.shape[:2]).mean(axis=1)

    def to_bytes(self) -> bytes:
        """`codebook.safetensors`; equal arrays give equal bytes."""
        from safetensors.numpy import save

        arrays = {"codes": self.codes, "mean": self.mean} | ({} if self.basis is None else {"basis": self.basis})
        return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})

    @property
    def digest(self) -> str:
        """The digest of the arrays and of the tower that they are for."""
        return bytes_sha256(self.to_bytes() + json_bytes(self.about["tower"]))


def on_grid(tokens: np.ndarray) -> np.ndarray:
    """Tokens [n, D] divided by their length, as whole numbers in float64, times `GRID`; zero stays zero."""
    x = tokens.astype(np.float64)
    return np.rint(x / np.maximum(lengths(x), 1e-300) * GRID)


def read_codebook(folder: Path) -> Codebook:
    """The codebook in a folder that `flame codes` made.

    Raises:
        InputError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / CODEBOOK
    for each in (path, folder / ABOUT):
        if not each.is_file():
            raise InputError(f"{each} is missing: {folder} holds no codebook; name a folder that `flame codes` made")
    try:
        arrays, about = load_file(path), json.loads((folder / ABOUT).read_text("utf-8"))
        found = Codebook(arrays["codes"], arrays["mean"], arrays.get("basis"), about)
        if not {"tower", "tokens", "cosine"} <= about.keys():
            raise ValueError("codebook.json says too little")
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder} holds a damaged codebook ({error}): run `flame codes` again") from None
    return found
