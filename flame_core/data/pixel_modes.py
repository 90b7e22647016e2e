"""Converts pixels of every kind that decoders return to eight bits per channel: RGB, or RGBA if there is transparency.

Pillow converts eight-bit kinds (grey, palettes, CMYK, YCbCr, LAB, ...). The others:

    16 bits     the upper eight; of a TIFF with 12 bits, the upper eight of those
    32 bits     no format defines white: the smaller of 255 and 65,535 that is not below any value
    floats      likewise with 1, 255 and 65,535; NaN becomes black, infinities become white and black

Values outside these ranges, such as measurements in a TIFF, are refused with an error instead of shown as black.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from flame_core.data.picture_bounds import PictureError

_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
_SLACK = 1 / 255  # how far resampling may overshoot a range of floats
_BLOCK = 1 << 22  # values converted at once

Map = Callable[[np.ndarray], np.ndarray]  # some values -> uint8


def needs_mapping(image: Image.Image) -> bool:
    """Whether the pixels have more than eight bits, so that Pillow's own conversion would clip them."""
    return image.mode == "F" or image.mode.startswith("I")


def eight_bits(image: Image.Image) -> Image.Image:
    """A decoded picture in mode RGB or RGBA.

    Raises:
        PictureError: `image_unsupported`, if its values have no known range.
    """
    if needs_mapping(image):
        return Image.fromarray(_mapped(image)).convert("RGB")
    if image.mode == "La":  # Pillow cannot convert this to RGBA directly
        image = image.convert("LA")
    return image.convert("RGBA" if is_transparent(image) else "RGB")


def is_transparent(image: Image.Image) -> bool:
    """Whether pixels may be transparent; Pillow's own conversion would show what lies below, which is mostly black."""
    return "transparency" in image.info or image.mode in _TRANSPARENT


def on_white(image: Image.Image) -> Image.Image:
    """A picture in mode RGB or RGBA as RGB; what is transparent becomes white."""
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _mapped(image: Image.Image) -> np.ndarray:
    """A picture with one channel of more than eight bits, as uint8 [H, W]."""
    values = np.asarray(image)
    blocks = np.array_split(values.reshape(-1), -(-values.size // _BLOCK))
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F":
        convert = _floats(blocks, image.format)
    elif image.mode == "I" and image.format == "TIFF":
        white = _white(min(int(b.min()) for b in blocks), max(int(b.max()) for b in blocks), (255, 65535), "integers")
        convert = _upper(8 if white == 255 else 16)
    else:  # 16 bits, including those that Pillow returns as 32
        bits = tags.get(_BITS, (16,))[0]
        convert = _upper(bits if 8 < bits < 16 else 16)
    grey = np.concatenate([convert(block) for block in blocks]).reshape(values.shape)
    return 255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def _upper(bits: int) -> Map:
    """A function that takes the upper eight of `bits` bits."""
    return lambda values: (values.astype(np.int64).clip(0, 2**bits - 1) >> (bits - 8)).astype(np.uint8)


def _floats(blocks: list[np.ndarray], kind: str | None) -> Map:
    low, high = 0.0, 0.0
    for block in blocks:
        finite = block[np.isfinite(block)]
        low, high = min(low, float(finite.min(initial=0))), max(high, float(finite.max(initial=0)))
    white = _white(low, high, (1, 255, 65535), f"floats ({kind})", _SLACK)

    def convert(values: np.ndarray) -> np.ndarray:
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=white, neginf=0.0)
        return (values * (255 / white)).clip(0, 255).round().astype(np.uint8)

    return convert


def _white(low: float, high: float, known: tuple[int, ...], what: str, slack: float = 0.0) -> int:
    """The smallest known value of white that is not below the highest value; black is 0."""
    white = next((white for white in known if high <= white * (1 + slack)), None)
    if white is not None and low >= -white * slack:
        return white
    raise PictureError(
        "image_unsupported", f"its pixels are {what} from {low:,.6g} to {high:,.6g}: which is white? Write 8 or 16 bits"
    )
