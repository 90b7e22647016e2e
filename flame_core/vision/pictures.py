"""Pictures to tensors: the augmented view of a training step, and the plain view of evaluation.

An augmentation is drawn from a generator of its own, so it depends on (seed, epoch, key) and on nothing else: not
on workers, ranks or restarts.
"""

from __future__ import annotations

import io
import math
import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flame_core.params import AugmentationParams

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]  # CLIP's
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def crop_box(width: int, height: int, params: AugmentationParams, draw: random.Random) -> Box:
    """The box of a random resized crop: its area and aspect ratio are drawn, ten tries, else the centre."""
    area = width * height
    low, high = (math.log(r) for r in params.ratio)
    for _ in range(10):
        target = area * draw.uniform(*params.scale)
        ratio = math.exp(draw.uniform(low, high))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, round(height * params.ratio[1])), min(height, round(width / params.ratio[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def training_picture(jpeg: bytes, size: int, params: AugmentationParams, draw: random.Random) -> Tensor:
    """A randomly cropped and perhaps mirrored picture, normalised: [3, size, size]."""
    picture = _open(jpeg)
    box = crop_box(*picture.size, params, draw)
    mirrored = draw.random() < params.flip
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _normalised(picture)


def evaluation_picture(jpeg: bytes, size: int) -> Tensor:
    """Short side to `size`, centre crop, normalised: [3, size, size]."""
    picture = _open(jpeg)
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return _normalised(picture.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)))


def _open(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def _normalised(picture: Image.Image) -> Tensor:
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255  # [3, H, W]
    return (values - MEAN) / STD
