"""What a picture looks like, in 64 bits and 192 bytes, for finding near-duplicates.

The hash is pHash: whether each of the 8x8 lowest frequencies of the grey picture is above their median (the same bits
as `imagehash.phash`). It describes shapes but not colour, so an 8x8 colour miniature complements it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _LOW = 32, 8
_n = np.arange(_SIDE)
_DCT = 2 * np.cos(np.pi * np.arange(_LOW)[:, None] * (2 * _n[None, :] + 1) / (2 * _SIDE))  # [8, 32], type II
COLOURS = _LOW * _LOW * 3


def perceptual_hash(picture: Image.Image) -> int:
    """64 bits; pictures with the same shapes differ in few of them."""
    grey = np.asarray(picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = (_DCT @ grey @ _DCT.T).round(6)  # otherwise the zeros of a flat picture would be noise
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def colour_miniature(picture: Image.Image) -> NDArray[np.uint8]:
    """Mean colours of the 8x8 grid cells of an RGB picture, flattened to [192]."""
    return np.asarray(picture.resize((_LOW, _LOW), Image.Resampling.BOX), dtype=np.uint8).ravel()
