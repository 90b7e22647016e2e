"""Decodes stored pictures and cuts views out of them, in one of two ways (`train.decoder`).

pil:          PIL decodes and resizes; resizing takes most of the time.
torchvision:  torchvision decodes into the same bytes, and torch resizes with vector instructions. Values differ from
              PIL's by rounding, and more at the edges of a crop, where PIL also reads pixels outside it.

Whatever torchvision is not known to read like PIL is decoded by PIL. This depends on the picture's bytes only.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flame_core.vision.jpeg_header import jpeg_frame

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Decoder = Literal["pil", "torchvision"]
Opened = Image.Image | Tensor  # RGB; a tensor is [3, H, W] in uint8 with a pixel's three values side by side


def open_picture(content: bytes) -> Image.Image:
    """A stored picture in RGB."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def open_with(decoder: Decoder, content: bytes) -> Opened:
    """A stored picture, from which `cut` cuts in the way of that decoder."""
    if decoder == "pil":
        return open_picture(content)
    frame = jpeg_frame(content)
    if frame is not None and frame.ordinary:
        try:
            from torchvision.io import ImageReadMode, decode_jpeg

            picture = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
            assert isinstance(picture, Tensor)
            return picture
        except (RuntimeError, ImportError):  # it refuses some broken ends that PIL reads, and may be gone one day
            pass
    return pixels_of(open_picture(content)).permute(2, 0, 1)


def pixels_of(picture: Image.Image) -> Tensor:
    """[H, W, 3] in uint8."""
    return torch.from_numpy(np.array(picture))


def size_of(picture: Opened) -> tuple[int, int]:
    """Width and height."""
    return (picture.shape[2], picture.shape[1]) if isinstance(picture, Tensor) else picture.size


def cut(picture: Opened, box: Box, size: int) -> Tensor:
    """A part of a picture, resized to [size, size, 3] in uint8; a tensor is cut at whole pixels."""
    if not isinstance(picture, Tensor):
        return pixels_of(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))
    left, top, right, bottom = (round(each) for each in box)
    part = picture[None, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(part, (size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous()
