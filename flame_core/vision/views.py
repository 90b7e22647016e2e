"""Pictures to tensors: the augmented views of a training step, and the plain view of evaluation.

They are copied to the GPU as bytes [H, W, 3], a quarter of the size of floats, and normalised there.

Each augmentation has its own generator, so it depends only on (seed, epoch, key), not on workers, ranks or restarts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from flame_core.params import AugmentationParams
from flame_core.vision.colours import recoloured
from flame_core.vision.decoding import Box, Opened, cut, open_picture, pixels_of, size_of

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]  # CLIP's
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
Place = tuple[float, float, float, float, float]


def crop_box(width: int, height: int, params: AugmentationParams, draw: random.Random) -> Box:
    """The box of a random resized crop: area and aspect ratio are drawn up to ten times, else it is the centre."""
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


class View(NamedTuple):
    """A view of a picture for training: [size, size, 3] in uint8, and where it was cut.

    `place` is left, top, right and bottom as fractions of the whole picture, and 1 if the view was mirrored, else 0.
    """

    pixels: Tensor
    place: Place


def training_view(picture: Opened, size: int, params: AugmentationParams, draw: random.Random) -> View:
    """A random crop of a picture, which may be mirrored and have other colours."""
    box, place = _drawn(*size_of(picture), params, draw)
    view = cut(picture, box, size)
    if place[-1]:
        view = view.flip(1)
    if params.photometric is not None:
        view = pixels_of(recoloured(Image.fromarray(view.numpy()), params.photometric, draw))
    return View(view, place)


def uncut_view(width: int, height: int, params: AugmentationParams, draw: random.Random) -> View:
    """The same place, by the same draws, in a picture of that size, without pixels and without other colours."""
    return View(torch.empty(0, dtype=torch.uint8), _drawn(width, height, params, draw)[1])


def _drawn(width: int, height: int, params: AugmentationParams, draw: random.Random) -> tuple[Box, Place]:
    left, top, right, bottom = crop_box(width, height, params, draw)
    mirrored = float(draw.random() < params.flip)
    return (left, top, right, bottom), (left / width, top / height, right / width, bottom / height, mirrored)


def box_around(boxes: Tensor) -> Tensor:
    """The smallest box that contains all views of a picture, [..., 4]; `boxes` [..., V, 4 or more] as in `View`."""
    return torch.cat([boxes[..., :2].amin(dim=-2), boxes[..., 2:4].amax(dim=-2)], dim=-1)


def view_around(picture: Opened, size: int, views: Sequence[View]) -> Tensor:
    """The smallest crop that contains all views of a picture, not mirrored, [size, size, 3] in uint8."""
    around = box_around(torch.tensor([view.place for view in views], dtype=torch.float64)).tolist()
    left, top, right, bottom = (round(share * side) for share, side in zip(around, size_of(picture) * 2, strict=True))
    return cut(picture, (left, top, right, bottom), size)


def evaluation_picture(jpeg: bytes, size: int) -> Tensor:
    """The picture with its short side resized to `size` and its centre cropped, [size, size, 3] in uint8."""
    picture = open_picture(jpeg)
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return cut(picture, (left, top, left + side, top + side), size)


def normalised(pictures: Tensor) -> Tensor:
    """Pictures [..., H, W, 3] in uint8 as a tower expects them: [..., 3, H, W] in float32 on the same device."""
    mean, std = _moments(pictures.device)
    values = pictures.movedim(-1, -3).contiguous().float()
    return values.div_(255).sub_(mean).div_(std)


@cache
def _moments(device: torch.device) -> tuple[Tensor, Tensor]:
    return MEAN.to(device), STD.to(device)
