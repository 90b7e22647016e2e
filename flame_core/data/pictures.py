"""A source's picture to the JPEG of a shard.

Upright (EXIF), RGB, transparency flattened on white, the first frame, at most `max_side` pixels on the longer side.
A picture that is all that already keeps its own bytes. The header is looked at before anything is decoded, so a
picture with more pixels than allowed costs nothing.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from flame_core.data import svg
from flame_core.data.picture_kinds import FORMATS
from flame_core.params import IngestParams

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(Exception):
    """A picture that is dropped; `reason` is counted, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Picture:
    """A picture as it goes into a shard. `jpeg` is None where the source's own bytes are stored as they are."""

    rgb: Image.Image
    jpeg: bytes | None


def read_picture(content: bytes, params: IngestParams) -> Picture:
    """Decode, straighten and shrink a picture.

    Raises:
        PictureError: `image_empty`, `image_unreadable`, `image_damaged` or `image_too_large`.
    """
    if not content:
        raise PictureError("image_empty", "zero bytes")
    if svg.is_svg(content):
        try:
            content = svg.render(content, params.max_side)
        except svg.SvgError as error:
            raise PictureError("image_unreadable", f"SVG: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata; what matters is checked here
        image = _open(content)
        pixels = image.width * image.height
        if pixels > params.max_pixels:
            size = f"{image.width} x {image.height} = {pixels:,} pixels"
            raise PictureError("image_too_large", f"{size}, more than max_pixels ({params.max_pixels:,})")
        try:
            return _convert(image, params)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever a broken stream leads them to
            raise PictureError("image_damaged", f"{image.format}: {error}") from None


def _open(content: bytes) -> Image.Image:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # max_pixels takes its place
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise PictureError("image_unreadable", "not a picture of a known format") from None
    except Exception as error:  # a header that begins well and ends in nonsense
        raise PictureError("image_unreadable", f"its header is damaged: {error}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _convert(image: Image.Image, params: IngestParams) -> Picture:
    turn = _TURNS.get(_orientation(image))
    size = image.size
    if image.format == "JPEG":
        image.draft(None, (2 * params.max_side, 2 * params.max_side))  # decodes fewer pixels of a large one
    image.load()
    as_is = image.format == "JPEG" and image.mode == "RGB" and max(size) <= params.max_side and turn is None
    rgb = _flat(_shrink(_eight_bits(image), params.max_side))
    if turn is not None:
        rgb = rgb.transpose(turn)
    if as_is:
        return Picture(rgb, None)
    rgb.info.clear()  # nothing of the source's metadata is written
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=params.jpeg_quality)
    return Picture(rgb, buffer.getvalue())


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture in mode RGB or RGBA."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        values = values * 255 if values.max(initial=0) <= 1 else values
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    return image.convert("RGBA" if transparent else "RGB")


def _shrink(image: Image.Image, side: int) -> Image.Image:
    longest = max(image.size)
    if longest <= side:
        return image
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _flat(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")
