"""Random changes of a crop's colours, in the order of SimCLR's augmentation: jitter, grey, blur, solarise.

The steps of the jitter come in a drawn order, as in torchvision; each depends only on the generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from flame_core.params import PhotometricParams

_BRIGHT = 128  # values from here on are inverted


def recoloured(picture: Image.Image, params: PhotometricParams, draw: random.Random) -> Image.Image:
    """An RGB picture with other colours."""
    if draw.random() < params.jitter:
        picture = _jittered(picture, params, draw)
    if draw.random() < params.grey:
        picture = picture.convert("L").convert("RGB")
    if draw.random() < params.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.1, 2.0)))
    if draw.random() < params.solarise:
        picture = ImageOps.solarize(picture, _BRIGHT)
    return picture


def _jittered(picture: Image.Image, params: PhotometricParams, draw: random.Random) -> Image.Image:
    def factor(most: float) -> float:
        return draw.uniform(1 - most, 1 + most)

    changes: list[Callable[[Image.Image], Image.Image]] = [
        lambda x: ImageEnhance.Brightness(x).enhance(factor(params.brightness)),
        lambda x: ImageEnhance.Contrast(x).enhance(factor(params.contrast)),
        lambda x: ImageEnhance.Color(x).enhance(factor(params.saturation)),
        lambda x: turned(x, draw.uniform(-params.hue, params.hue)),
    ]
    draw.shuffle(changes)
    for change in changes:
        picture = change(picture)
    return picture


def turned(picture: Image.Image, hue: float) -> Image.Image:
    """An RGB picture whose hues are turned; 1 is once round."""
    pixels = np.array(picture.convert("HSV"))
    pixels[..., 0] += np.uint8(round(hue * 255) % 256)  # wraps around
    return Image.fromarray(pixels, "HSV").convert("RGB")
