"""Decodes and cuts a batch of pictures on a GPU (`train.decoder: nvjpeg`).

nvJPEG's values differ a little from libjpeg's. All views of a group of pictures are resized by matrix products with
PIL's bicubic filter, within 1 of PIL's values. A picture that nvJPEG is not known to read, or refuses, is decoded on
the CPU; this depends on its bytes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
from torch import Tensor

from flame_core.errors import ParamsError
from flame_core.vision.decoding import open_with, size_of
from flame_core.vision.jpeg_header import jpeg_frame

GROUP = 64  # pictures at most that are decoded and cut together
_PIXELS = 2**26  # of such a group, each picture as large as its largest width and height: 0.8 GB
_PROCESSES = (0xC0, 0xC2)  # baseline and progressive
_SAMPLINGS = frozenset(((h, v), (1, 1), (1, 1)) for h, v in ((1, 1), (2, 1), (2, 2), (1, 2)))
_A = -0.5  # of the bicubic filter


def require_gpu(decoder: str, device: str) -> None:
    """Refuse a training that would decode on a GPU where there is none.

    Raises:
        ParamsError: says what to set.
    """
    if decoder != "nvjpeg":
        return
    if device != "cuda":
        raise ParamsError(
            "nvjpeg decodes on a GPU, and this training runs on a CPU: set it to torchvision", key="train.decoder"
        )
    try:
        from torchvision.io import decode_jpeg  # noqa: F401
    except ImportError as error:
        raise ParamsError(
            f"nvjpeg needs torchvision's decode_jpeg ({error}): set it to torchvision", key="train.decoder"
        ) from error


def reads(content: bytes) -> bool:
    """Whether nvJPEG decodes a picture; by its header only."""
    frame = jpeg_frame(content)
    if frame is None or not frame.ordinary:
        return False
    return frame.process in _PROCESSES and frame.sampling in _SAMPLINGS and frame.adobe in (None, 1)


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height, for an ordinary JPEG without decoding it."""
    frame = jpeg_frame(content)
    if frame is not None and frame.ordinary:
        return frame.width, frame.height
    return size_of(open_with("torchvision", content))


@dataclass(frozen=True)
class EncodedPictures:
    """The bytes of a batch's pictures, one after another.

    Attributes:
        content: [bytes] in uint8.
        ends: [b], where each picture ends.
        known: [b], whether nvJPEG reads it.
    """

    content: Tensor
    ends: Tensor
    known: Tensor

    @classmethod
    def of(cls, contents: Sequence[bytes]) -> Self:
        """Pictures of any format."""
        ends = torch.tensor([len(each) for each in contents]).cumsum(0)
        joined = torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8)
        return cls(joined, ends, torch.tensor([reads(each) for each in contents]))

    def decode(self, device: str) -> list[Tensor]:
        """Pictures [3, H, W] in uint8 on a device; if that is a CPU, torchvision decodes all of them there."""
        ends: list[int] = self.ends.tolist()
        parts = [self.content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        known = torch.zeros_like(self.known) if device == "cpu" else self.known
        of_gpu = iter(_decoded_on_gpu([parts[place] for place in known.nonzero().flatten().tolist()], device))
        fit: list[bool] = known.tolist()
        return [next(of_gpu) if gpu else _decoded_here(part).to(device) for part, gpu in zip(parts, fit, strict=True)]


def cut_in_groups(pictures: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    """`cut_views` of any number of pictures, in bounded memory."""
    groups = _groups([tuple(picture.shape[1:]) for picture in pictures])
    return torch.cat([cut_views(pictures[own], boxes[own], size) for own in groups])


def _groups(sizes: Sequence[tuple[int, ...]]) -> list[slice]:
    """Groups of adjacent pictures of these heights and widths, whose canvas has at most `_PIXELS` if it has several."""
    groups: list[slice] = []
    start = height = width = 0
    for place, (h, w) in enumerate(sizes):
        height, width, count = max(height, h), max(width, w), place - start + 1
        if count > GROUP or (count > 1 and count * height * width > _PIXELS):
            groups.append(slice(start, place))
            start, height, width = place, h, w
    return [*groups, slice(start, len(sizes))]


def cut_views(pictures: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    """Views [n, V, size, size, 3] in uint8 of pictures [3, H, W] in uint8 on one device.

    `boxes` [n, V, 5] holds left, top, right and bottom as fractions of a picture, and 1 if the view is mirrored.
    """
    device = pictures[0].device
    sides = torch.tensor([picture.shape[:0:-1] for picture in pictures])  # [n, 2]: width and height
    width, height = sides.amax(dim=0).tolist()
    canvas = torch.zeros(len(pictures), 3, height, width, device=device)
    for place, picture in zip(canvas, pictures, strict=True):
        place[:, : picture.shape[1], : picture.shape[2]] = picture
    pixels = (boxes[..., :4].double() * sides.repeat(1, 2)[:, None]).round().float().to(device)  # [n, V, 4]
    sides, mirrored = sides.to(device), boxes[..., 4].bool().to(device)
    across = resampling(pixels[..., 0], pixels[..., 2], sides[:, :1], size, width)  # [n, V, size, W]
    across = torch.where(mirrored[..., None, None], across.flip(2), across)
    down = resampling(pixels[..., 1], pixels[..., 3], sides[:, 1:], size, height)
    rows = _rounded(canvas[:, None] @ across[:, :, None].mT)  # [n, V, 3, H, size]
    return _rounded(down[:, :, None] @ rows).byte().permute(0, 1, 3, 4, 2).contiguous()


def resampling(start: Tensor, end: Tensor, length: Tensor, size: int, most: int) -> Tensor:
    """Matrices [n, V, size, most] that resize pixels from `start` to `end` [n, V] of lines of `length` [n, 1] pixels.

    The weights are those of PIL's antialiased bicubic filter; pixels from `length` on have none.
    """
    step = ((end - start) / size)[..., None, None]
    stretch = step.clamp(min=1)
    centre = start[..., None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * step  # [n, V, size, 1]
    pixel = torch.arange(most, device=start.device)
    x = ((pixel + 0.5 - centre) / stretch).abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * _A - 4 * _A
    weight = torch.where(x < 1, near, torch.where(x < 2, far, 0.0)) * (pixel < length[..., None, None])
    return weight / weight.sum(dim=-1, keepdim=True)


def _rounded(values: Tensor) -> Tensor:
    """Whole numbers from 0 to 255; a half goes up, as in PIL. Changes `values`."""
    return values.add_(0.5).floor_().clamp_(0, 255)


def _decoded_on_gpu(contents: Sequence[Tensor], device: str) -> list[Tensor]:
    found: list[Tensor] = []
    for at in range(0, len(contents), GROUP):
        group = list(contents[at : at + GROUP])
        # The decoder writes on a stream of its own, into memory that work of this stream may still read.
        torch.cuda.current_stream(device).synchronize()
        found += _by_nvjpeg(group, device) or [
            picture for each in group for picture in _by_nvjpeg([each], device) or [_decoded_here(each).to(device)]
        ]
    return found


def _by_nvjpeg(contents: list[Tensor], device: str) -> list[Tensor] | None:
    """None if nvJPEG refuses one of them, such as one whose scan is damaged; it does not say which."""
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        found = decode_jpeg(contents, ImageReadMode.RGB, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        _require_decoding(device)
        return None
    assert isinstance(found, list)
    return found


@cache
def _require_decoding(device: str) -> None:
    """Refuse a GPU that reads no picture at all: everything would be decoded on the CPU, and nothing would say so.

    Raises:
        ParamsError: says what to set.
    """
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

    try:
        known = encode_jpeg([torch.full((3, 16, 16), 128, dtype=torch.uint8)])
        decode_jpeg(list(known), ImageReadMode.RGB, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ParamsError(
            f"nvjpeg reads no picture on this GPU ({error}): set it to torchvision", key="train.decoder"
        ) from error


def _decoded_here(content: Tensor) -> Tensor:
    picture = open_with("torchvision", content.numpy().tobytes())
    assert isinstance(picture, Tensor)
    return picture
